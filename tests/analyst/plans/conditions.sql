-- title: LIKE
SELECT COUNT(*) FROM visits WHERE ward LIKE 's%'
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: NOT LIKE
SELECT COUNT(*) FROM visits WHERE ward NOT LIKE 's%'
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"medicine"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: ILIKE
SELECT COUNT(*) FROM visits WHERE ward ILIKE 'S%'
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: LIKE that no value is like
SELECT COUNT(*) FROM visits WHERE ward LIKE 'x%'
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"compare","column":"ward","op":"<>","value":"medicine"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: SUBSTR
SELECT COUNT(*) FROM visits WHERE SUBSTR(ward, 1, 1) = 's'
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: SUBSTR IN
SELECT COUNT(*) FROM visits WHERE SUBSTR(ward, 1, 1) IN ('s', 'm')
-- plan:
{"kind":"query","where":{"kind":"one_of","column":"ward","values":["medicine","surgery"]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: NOT over what is computed
SELECT COUNT(*) FROM visits WHERE NOT (ward LIKE 's%' AND age > 3)
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"not","operand":{"kind":"compare","column":"age","op":">","value":"3"}}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a sum moved to the other side
SELECT COUNT(*) FROM visits WHERE age + 1 > 5
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"4"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a product moved to the other side
SELECT COUNT(*) FROM visits WHERE age * 2 <= 10
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<=","value":"5"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a negative factor turns the comparison
SELECT COUNT(*) FROM visits WHERE 5 - age > 2
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<","value":"3"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: both sides
SELECT COUNT(*) FROM visits WHERE 2 * age < age + 40
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<","value":"40"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a bound between two cells is rounded where no cell lies
SELECT COUNT(*) FROM visits WHERE age * 3 < 10
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<=","value":"3.333333333"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: no whole number is a half
SELECT COUNT(*) FROM visits WHERE age * 2 = 5
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"age","op":"=","value":"0"},{"kind":"compare","column":"age","op":"<>","value":"0"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: every whole number is no half
SELECT COUNT(*) FROM visits WHERE age * 2 <> 5
-- plan:
{"kind":"query","where":{"kind":"not","operand":{"kind":"and","operands":[{"kind":"compare","column":"age","op":"=","value":"0"},{"kind":"compare","column":"age","op":"<>","value":"0"}]}},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a sum of literals
SELECT COUNT(*) FROM visits WHERE age > 30 + 4
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"34"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: COALESCE that passes
SELECT COUNT(*) FROM visits WHERE COALESCE(age, 0) < 5
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"compare","column":"age","op":"<","value":"5"},{"kind":"is_null","column":"age"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: COALESCE that does not
SELECT COUNT(*) FROM visits WHERE COALESCE(age, 10) < 5
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<","value":"5"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: two columns
SELECT COUNT(*) FROM visits WHERE age < stay
-- plan:
{"kind":"query","where":{"kind":"compare_columns","column":"age","op":"<","other":"stay"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: two columns that are equal
SELECT COUNT(*) FROM visits WHERE ward = region
-- plan:
{"kind":"query","where":{"kind":"compare_columns","column":"ward","op":"=","other":"region"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: two columns of two kinds of number
SELECT COUNT(*) FROM visits WHERE grade < cost
-- plan:
{"kind":"query","where":{"kind":"compare_columns","column":"grade","op":"<","other":"cost"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: BETWEEN of an expression
SELECT COUNT(*) FROM visits WHERE age + 1 BETWEEN 10 AND 20
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">=","value":"9"},{"kind":"compare","column":"age","op":"<=","value":"19"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: BETWEEN a literal and a column
SELECT COUNT(*) FROM visits WHERE age BETWEEN 10 AND stay
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">=","value":"10"},{"kind":"compare_columns","column":"age","op":"<=","other":"stay"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a bucket
SELECT COUNT(*) FROM visits WHERE age // 10 = 3
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">=","value":"30"},{"kind":"compare","column":"age","op":"<","value":"40"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: IS TRUE
SELECT COUNT(*) FROM visits WHERE smoker IS TRUE
-- plan:
{"kind":"query","where":{"kind":"compare","column":"smoker","op":"=","value":"true"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: IS NOT TRUE
SELECT COUNT(*) FROM visits WHERE smoker IS NOT TRUE
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"compare","column":"smoker","op":"=","value":"false"},{"kind":"is_null","column":"smoker"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: IS NOT DISTINCT FROM
SELECT COUNT(*) FROM visits WHERE age IS NOT DISTINCT FROM 3
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"not","operand":{"kind":"is_null","column":"age"}},{"kind":"compare","column":"age","op":"=","value":"3"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: IS DISTINCT FROM
SELECT COUNT(*) FROM visits WHERE age IS DISTINCT FROM 3
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"is_null","column":"age"},{"kind":"compare","column":"age","op":"<>","value":"3"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a cast
SELECT COUNT(*) FROM visits WHERE age::VARCHAR = '3'
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">=","value":"3"},{"kind":"compare","column":"age","op":"<","value":"4"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a function
SELECT COUNT(*) FROM visits WHERE ABS(age - 50) >= 40
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"compare","column":"age","op":"<","value":"11"},{"kind":"compare","column":"age","op":">=","value":"90"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a function of a literal
SELECT COUNT(*) FROM visits WHERE ward = LOWER('SURGERY')
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: cells of a column with a domain
SELECT grade, COUNT(ward), COUNT(*) AS n FROM visits GROUP BY grade
-- plan:
{"kind":"query","where":null,"group_by":["grade","hidden_1"],"aggregates":[{"function":"count","column":null,"alias":"hidden_count_1"}],"cases":[{"name":"hidden_1","whens":[{"kind":"one_of","column":"ward","values":["medicine","surgery"]}],"labels":["1"],"otherwise":"0"}]}

-- title: conditions on more columns than may be grouped by
SELECT COUNT(*) FILTER (WHERE ward = 'surgery') AS s, COUNT(*) FILTER (WHERE age >= 65) AS o, COUNT_IF(smoker) AS k FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":"measure_1","alias":"f1"},{"function":"count","column":"measure_2","alias":"f2"},{"function":"count","column":"measure_3","alias":"f3"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"ward","op":"=","value":"surgery"}],"results":[{"kind":"constant","value":"1"}],"otherwise":null}},{"name":"measure_2","expression":{"kind":"choose","whens":[{"kind":"compare","column":"age","op":">=","value":"65"}],"results":[{"kind":"constant","value":"1"}],"otherwise":null}},{"name":"measure_3","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"constant","value":"1"}],"otherwise":null}}]}

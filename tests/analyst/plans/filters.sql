-- title: equal
SELECT COUNT(*) FROM visits WHERE ward = 'surgery'
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: unequal
SELECT COUNT(*) FROM visits WHERE age <> 30
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<>","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: unequal as in C
SELECT COUNT(*) FROM visits WHERE age != 30
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<>","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: below
SELECT COUNT(*) FROM visits WHERE age < 30
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: at most
SELECT COUNT(*) FROM visits WHERE age <= 30
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<=","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: above
SELECT COUNT(*) FROM visits WHERE age > 30
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: at least
SELECT COUNT(*) FROM visits WHERE age >= 30
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">=","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: flipped: below
SELECT COUNT(*) FROM visits WHERE 30 < age
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: flipped: at most
SELECT COUNT(*) FROM visits WHERE 30 <= age
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">=","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: flipped: above
SELECT COUNT(*) FROM visits WHERE 30 > age
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: flipped: at least
SELECT COUNT(*) FROM visits WHERE 30 >= age
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<=","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: flipped: equal
SELECT COUNT(*) FROM visits WHERE 'surgery' = ward
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: flipped: unequal
SELECT COUNT(*) FROM visits WHERE 30 <> age
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":"<>","value":"30"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a negative number
SELECT COUNT(*) FROM visits WHERE cost > -12.50
-- plan:
{"kind":"query","where":{"kind":"compare","column":"cost","op":">","value":"-12.50"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a decimal
SELECT COUNT(*) FROM visits WHERE cost <= 0.05
-- plan:
{"kind":"query","where":{"kind":"compare","column":"cost","op":"<=","value":"0.05"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a negative number in a list
SELECT COUNT(*) FROM visits WHERE grade IN (-1, 2)
-- plan:
{"kind":"query","where":{"kind":"one_of","column":"grade","values":["-1","2"]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: IN
SELECT COUNT(*) FROM visits WHERE ward IN ('surgery', 'medicine')
-- plan:
{"kind":"query","where":{"kind":"one_of","column":"ward","values":["surgery","medicine"]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: NOT IN
SELECT COUNT(*) FROM visits WHERE ward NOT IN ('unknown')
-- plan:
{"kind":"query","where":{"kind":"not","operand":{"kind":"one_of","column":"ward","values":["unknown"]}},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: BETWEEN
SELECT COUNT(*) FROM visits WHERE age BETWEEN 18 AND 65
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">=","value":"18"},{"kind":"compare","column":"age","op":"<=","value":"65"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: BETWEEN with negative bounds
SELECT COUNT(*) FROM visits WHERE cost BETWEEN -5 AND -0.5
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"cost","op":">=","value":"-5"},{"kind":"compare","column":"cost","op":"<=","value":"-0.5"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: NOT BETWEEN
SELECT COUNT(*) FROM visits WHERE age NOT BETWEEN 18 AND 65
-- plan:
{"kind":"query","where":{"kind":"not","operand":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">=","value":"18"},{"kind":"compare","column":"age","op":"<=","value":"65"}]}},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: IS NULL
SELECT COUNT(*) FROM visits WHERE region IS NULL
-- plan:
{"kind":"query","where":{"kind":"is_null","column":"region"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: IS NOT NULL
SELECT COUNT(*) FROM visits WHERE age IS NOT NULL
-- plan:
{"kind":"query","where":{"kind":"not","operand":{"kind":"is_null","column":"age"}},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a bool is a condition
SELECT COUNT(*) FROM visits WHERE smoker
-- plan:
{"kind":"query","where":{"kind":"compare","column":"smoker","op":"=","value":"true"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: NOT a bool
SELECT COUNT(*) FROM visits WHERE NOT smoker
-- plan:
{"kind":"query","where":{"kind":"not","operand":{"kind":"compare","column":"smoker","op":"=","value":"true"}},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a bool compared
SELECT COUNT(*) FROM visits WHERE smoker = FALSE
-- plan:
{"kind":"query","where":{"kind":"compare","column":"smoker","op":"=","value":"false"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: AND
SELECT COUNT(*) FROM visits WHERE age > 30 AND smoker AND ward = 'surgery'
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">","value":"30"},{"kind":"compare","column":"smoker","op":"=","value":"true"},{"kind":"compare","column":"ward","op":"=","value":"surgery"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: OR
SELECT COUNT(*) FROM visits WHERE age > 30 OR smoker
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"compare","column":"age","op":">","value":"30"},{"kind":"compare","column":"smoker","op":"=","value":"true"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: AND binds closer than OR
SELECT COUNT(*) FROM visits WHERE age > 30 OR smoker AND age < 20
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"compare","column":"age","op":">","value":"30"},{"kind":"and","operands":[{"kind":"compare","column":"smoker","op":"=","value":"true"},{"kind":"compare","column":"age","op":"<","value":"20"}]}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: parentheses
SELECT COUNT(*) FROM visits WHERE (age > 30 OR smoker) AND age < 20
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"or","operands":[{"kind":"compare","column":"age","op":">","value":"30"},{"kind":"compare","column":"smoker","op":"=","value":"true"}]},{"kind":"compare","column":"age","op":"<","value":"20"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: NOT of a parenthesis
SELECT COUNT(*) FROM visits WHERE NOT (age > 30 AND smoker)
-- plan:
{"kind":"query","where":{"kind":"not","operand":{"kind":"and","operands":[{"kind":"compare","column":"age","op":">","value":"30"},{"kind":"compare","column":"smoker","op":"=","value":"true"}]}},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: text without a domain may be any
SELECT COUNT(*) FROM visits WHERE region = 'it''s; DROP TABLE visits; --'
-- plan:
{"kind":"query","where":{"kind":"compare","column":"region","op":"=","value":"it's; DROP TABLE visits; --"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: text that looks like a number
SELECT COUNT(*) FROM visits WHERE region = '12'
-- plan:
{"kind":"query","where":{"kind":"compare","column":"region","op":"=","value":"12"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: everything together
SELECT ward AS w, grade, COUNT(*) AS n, AVG(cost) AS mean
FROM visits
WHERE age BETWEEN 18 AND 65 AND (NOT smoker OR region IS NOT NULL)
GROUP BY w, grade
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"and","operands":[{"kind":"compare","column":"age","op":">=","value":"18"},{"kind":"compare","column":"age","op":"<=","value":"65"}]},{"kind":"or","operands":[{"kind":"not","operand":{"kind":"compare","column":"smoker","op":"=","value":"true"}},{"kind":"not","operand":{"kind":"is_null","column":"region"}}]}]},"group_by":["ward","grade"],"aggregates":[{"function":"count","column":null,"alias":"n"},{"function":"avg","column":"cost","alias":"mean"}]}

-- title: an exponent
SELECT COUNT(*) FROM visits WHERE cost > 5e1
-- plan:
{"kind":"query","where":{"kind":"compare","column":"cost","op":">","value":"50"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a sum of two columns
SELECT SUM(age + stay) AS s FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"sum","column":"measure_1","alias":"s"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"add","arguments":[{"kind":"cell","column":"age"},{"kind":"cell","column":"stay"}]}}]}

-- title: a product, an average and a count of the same expression
SELECT AVG(age * stay) AS m, SUM(stay * age) AS s, SUM(age * stay) AS t FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"m"},{"function":"sum","column":"measure_2","alias":"s"},{"function":"sum","column":"measure_1","alias":"t"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"multiply","arguments":[{"kind":"cell","column":"age"},{"kind":"cell","column":"stay"}]}},{"name":"measure_2","expression":{"kind":"apply","function":"multiply","arguments":[{"kind":"cell","column":"stay"},{"kind":"cell","column":"age"}]}}]}

-- title: a ratio that leaves rows of 0 out
SELECT AVG(cost / NULLIF(age, 0)) AS m FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"m"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"divide","arguments":[{"kind":"cell","column":"cost"},{"kind":"apply","function":"nullif","arguments":[{"kind":"cell","column":"age"},{"kind":"constant","value":"0"}]}]}}]}

-- title: a ratio whose divisor a condition bounds
SELECT AVG(cost / age) AS m FROM visits WHERE age >= 18
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">=","value":"18"},"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"m"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"divide","arguments":[{"kind":"cell","column":"cost"},{"kind":"cell","column":"age"}]}}]}

-- title: a ratio whose divisor its own condition bounds
SELECT AVG(cost / age) FILTER (WHERE age >= 18) AS m FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"f1"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"age","op":">=","value":"18"}],"results":[{"kind":"apply","function":"divide","arguments":[{"kind":"cell","column":"cost"},{"kind":"cell","column":"age"}]}],"otherwise":null}}]}

-- title: a clamped measure
SELECT AVG(LEAST(GREATEST(cost, 0), 1000)) AS m FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"m"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"least","arguments":[{"kind":"apply","function":"greatest","arguments":[{"kind":"cell","column":"cost"},{"kind":"constant","value":"0"}]},{"kind":"constant","value":"1000"}]}}]}

-- title: a CASE of two results
SELECT SUM(CASE WHEN smoker THEN age ELSE -stay END) AS s FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"sum","column":"measure_1","alias":"f1"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"cell","column":"age"}],"otherwise":{"kind":"apply","function":"negate","arguments":[{"kind":"cell","column":"stay"}]}}}]}

-- title: a condition as a number
SELECT AVG(age >= 65) AS share FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"share"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"age","op":">=","value":"65"},{"kind":"not","operand":{"kind":"compare","column":"age","op":">=","value":"65"}}],"results":[{"kind":"constant","value":"1"},{"kind":"constant","value":"0"}],"otherwise":null}}]}

-- title: a bool as a number
SELECT SUM(CAST(smoker AS INT)) AS n FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"sum","column":"smoker","alias":"n"}]}

-- title: logarithms
SELECT AVG(LN(age + 1)) AS a, AVG(LOG(2, age + 1)) AS b, AVG(LOG(age + 1)) AS c FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"a"},{"function":"avg","column":"measure_2","alias":"b"},{"function":"avg","column":"measure_3","alias":"c"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"ln","arguments":[{"kind":"apply","function":"add","arguments":[{"kind":"cell","column":"age"},{"kind":"constant","value":"1"}]}]}},{"name":"measure_2","expression":{"kind":"apply","function":"log2","arguments":[{"kind":"apply","function":"add","arguments":[{"kind":"cell","column":"age"},{"kind":"constant","value":"1"}]}]}},{"name":"measure_3","expression":{"kind":"apply","function":"log10","arguments":[{"kind":"apply","function":"add","arguments":[{"kind":"cell","column":"age"},{"kind":"constant","value":"1"}]}]}}]}

-- title: a variance with a condition
SELECT VAR_POP(age) FILTER (WHERE smoker) AS v, COUNT_IF(smoker) AS n FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"var_pop","column":"measure_1","alias":"f1"},{"function":"count","column":"measure_2","alias":"f2"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"cell","column":"age"}],"otherwise":null}},{"name":"measure_2","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"constant","value":"1"}],"otherwise":null}}]}

-- title: a correlation of expressions
SELECT CORR(age / 10, SQRT(stay)) AS r FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"corr","column":"measure_1","alias":"r","other":"measure_2"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"divide","arguments":[{"kind":"cell","column":"age"},{"kind":"constant","value":"10"}]}},{"name":"measure_2","expression":{"kind":"apply","function":"sqrt","arguments":[{"kind":"cell","column":"stay"}]}}]}

-- title: an expression of a row of a person
SELECT AVG(spent / n) AS mean FROM (SELECT patient_id, LEAST(GREATEST(SUM(cost), 0), 500) AS spent, LEAST(COUNT(*), 20) AS n FROM visits GROUP BY patient_id) WHERE n >= 1
-- plan:
{"kind":"query","where":{"kind":"compare","column":"n","op":">=","value":"1"},"group_by":[],"aggregates":[{"function":"avg","column":"measure_1","alias":"mean"}],"inner":{"where":null,"columns":[{"name":"spent","function":"sum","column":"cost","low":0,"high":50000},{"name":"n","function":"count","column":null,"high":20}]},"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"divide","arguments":[{"kind":"cell","column":"spent"},{"kind":"cell","column":"n"}]}}]}

-- title: rounding, of a decimal and of a ratio
SELECT SUM(ROUND(cost)) AS a, SUM(CAST(cost AS INT)) AS b, SUM(CAST(cost / 3 AS INT)) AS c FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"sum","column":"measure_1","alias":"a"},{"function":"sum","column":"measure_1","alias":"b"},{"function":"sum","column":"measure_2","alias":"c"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"round","arguments":[{"kind":"cell","column":"cost"},{"kind":"constant","value":"0"}]}},{"name":"measure_2","expression":{"kind":"apply","function":"round_even","arguments":[{"kind":"apply","function":"divide","arguments":[{"kind":"cell","column":"cost"},{"kind":"constant","value":"3"}]}]}}]}

-- title: a measure divided by a column that may be 0
SELECT AVG(cost / age) FROM visits
-- error:
cost / age has no public bounds at line 1, column 12: it divides by age, which may be 0: the bounds of 'age' are 0 to 110
-- hint:
leave out rows of 0, by cost / NULLIF(age, 0), or WHERE age >= 1, or count such rows as 1: cost / GREATEST(age, 1)

-- title: a measure divided by an expression that may be 0
SELECT AVG(cost / (age - 5)) FROM visits
-- error:
cost / (age - 5) has no public bounds at line 1, column 12: it divides by age - 5, which may be 0: its values are from -5 to 105
-- hint:
count such rows as 1: cost / GREATEST(age - 5, 1)

-- title: a measure divided by 0
SELECT AVG(cost / 0) FROM visits
-- error:
cost / 0 has no public bounds at line 1, column 12: it divides by 0
-- hint:
write a number above 0

-- title: a logarithm of 0
SELECT AVG(LN(age)) FROM visits
-- error:
LN(age) has no public bounds at line 1, column 12: a logarithm needs values above 0, and they are from 0 to 110
-- hint:
WHERE age >= 1, or count such rows as 1: LN(GREATEST(age, 1))

-- title: a root of what may be negative
SELECT AVG(SQRT(cost)) FROM visits
-- error:
SQRT(cost) has no public bounds at line 1, column 12: a root needs values of 0 and more, and they are from -50 to 5000
-- hint:
write SQRT(GREATEST(cost, 0)), or SQRT(ABS(cost))

-- title: an exponential out of reach
SELECT AVG(EXP(age)) FROM visits
-- error:
EXP(age) has no public bounds at line 1, column 12: EXP of values from 0 to 110 is out of reach
-- hint:
write EXP(LEAST(GREATEST(age, -10), 10))

-- title: too large a power
SELECT AVG(POWER(age, 9)) FROM visits
-- error:
POWER(age, 9) has no public bounds at line 1, column 12: a power is a whole number from 1 to 8
-- hint:
write POWER(x, 2), x * x, or SQRT(x)

-- title: a product beyond all bounds
SELECT AVG(cost * cost * cost * cost * cost * cost) FROM visits
-- error:
cost * cost * cost * cost * cost * cost has no public bounds at line 1, column 12: its values reach from -31250000000000000 to 3125000000000000000, beyond 1e15
-- hint:
divide before you multiply, as in (x / 1000000) * y

-- title: a measure with an unknown function
SELECT AVG(SIN(age)) FROM visits
-- error:
SIN(age) is not supported in a measure at line 1, column 12
-- hint:
a measure is computed of a row by + - * / %, ABS, SIGN, FLOOR, CEIL, ROUND, TRUNC, LEAST, GREATEST, COALESCE, NULLIF, CASE, SQRT, LN, LOG, EXP, POWER(x, 2), CAST

-- title: a measure with a side effect
SELECT AVG(random() * age) FROM visits
-- error:
RANDOM() is not supported in a measure at line 1, column 12
-- hint:
a measure is computed of a row by + - * / %, ABS, SIGN, FLOOR, CEIL, ROUND, TRUNC, LEAST, GREATEST, COALESCE, NULLIF, CASE, SQRT, LN, LOG, EXP, POWER(x, 2), CAST

-- title: an expression of a column without bounds
SELECT AVG(age + grade) FROM visits
-- error:
cannot aggregate 'grade' at line 1, column 18: no policy gives it bounds
-- hint:
average its groups: SELECT SUM(grade * n) / SUM(n) AS average FROM (SELECT grade, COUNT(*) AS n FROM visits WHERE grade IS NOT NULL GROUP BY grade)

-- title: text in a measure
SELECT AVG(age + '3') FROM visits
-- error:
'3' is no number at line 1, column 18
-- hint:
write a number in digits, with up to 18 before the point and 9 after it

-- title: a remainder of decimals
SELECT AVG(cost % 10) FROM visits
-- error:
cost % 10 is not supported in a measure at line 1, column 12: it is of whole numbers
-- hint:
write FLOOR(x / y)

-- title: a measure cast to text
SELECT AVG(CAST(age AS VARCHAR)) FROM visits
-- error:
CAST(age AS TEXT) is not supported in a measure at line 1, column 17
-- hint:
cast to a number: INT, BIGINT, DOUBLE or DECIMAL(18, 2)

-- title: a number too fine
SELECT AVG(age * 0.00000000001) FROM visits
-- error:
0.00000000001 is too large or too fine at line 1, column 18
-- hint:
write a number in digits, with up to 18 before the point and 9 after it

-- title: a range that no step resolves
SELECT AVG(EXP(age / 10 - 40)) FROM visits
-- error:
EXP(age / 10 - 40) at line 1, column 12 has values from 4.248354255e-18 to 2.543665647e-13, and the finest step is 1e-9
-- hint:
multiply it, as in 1000000 * x, and divide the figure by it

-- title: rounding by a column
SELECT AVG(ROUND(cost, age)) FROM visits
-- error:
ROUND(cost, age) is not supported in a measure at line 1, column 12
-- hint:
the second argument of ROUND is a number here

-- title: a measure of too many parts
SELECT AVG(age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age + age) FROM visits
-- error:
age + age + age + age + age + age + age + age + age + age +  is too large at line 1, column 12: an expression has more than 64 parts, or is nested more than 12 deep
-- hint:
ask for its parts in columns of their own

-- title: a measure nested too deeply
SELECT AVG(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(age)))))))))))))) FROM visits
-- error:
ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(ABS(age))))) is too large at line 1, column 12: an expression has more than 64 parts, or is nested more than 12 deep
-- hint:
ask for its parts in columns of their own

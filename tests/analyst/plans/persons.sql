-- title: the number of persons
SELECT COUNT(DISTINCT patient_id) AS n FROM visits WHERE age > 50
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"50"},"group_by":[],"aggregates":[{"function":"persons","column":null,"alias":"n"}]}

-- title: the number of persons by group, beside figures of rows
SELECT ward, COUNT(DISTINCT patient_id), AVG(age) FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"persons","column":null,"alias":"count_distinct_patient_id"},{"function":"avg","column":"age","alias":"avg_age"}]}

-- title: the rows that have a person are all that count
SELECT COUNT(patient_id) AS n FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"n"}]}

-- title: the persons of a table, as a list that is counted
SELECT COUNT(*) AS n FROM (SELECT DISTINCT patient_id FROM visits)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[]}}

-- title: who came again
SELECT COUNT(*) AS again FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) > 1)
-- plan:
{"kind":"query","where":{"kind":"compare","column":"having_1","op":">","value":"1"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"again"}],"inner":{"where":null,"columns":[{"name":"having_1","function":"count","column":null,"high":2}]}}

-- title: a cohort by what came first
WITH f AS (SELECT patient_id, MIN(grade) AS cohort FROM visits GROUP BY patient_id)
SELECT cohort, COUNT(*) AS n FROM f GROUP BY cohort
-- plan:
{"kind":"query","where":null,"group_by":["cohort"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"cohort","function":"first","column":"grade"}]}}

-- title: the mean of a figure of each person
SELECT AVG(n) AS mean FROM (SELECT patient_id, LEAST(COUNT(*), 20) AS n FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"n","alias":"mean"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":20}]}}

-- title: how many persons have how many rows
SELECT n, COUNT(*) AS persons FROM (SELECT patient_id, LEAST(COUNT(*), 3) AS n FROM visits GROUP BY patient_id) GROUP BY n
-- plan:
{"kind":"query","where":null,"group_by":["n"],"aggregates":[{"function":"count","column":null,"alias":"persons"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":3}]}}

-- title: sums of a person within bounds, and a condition on another figure
SELECT AVG(t.spent) FROM (SELECT v.patient_id AS who, GREATEST(LEAST(SUM(cost), 9000.5), -50) AS spent, MAX(v.age) AS oldest
FROM visits v WHERE v.ward <> 'surgery' GROUP BY 1) t WHERE t.oldest >= 18
-- plan:
{"kind":"query","where":{"kind":"compare","column":"oldest","op":">=","value":"18"},"group_by":[],"aggregates":[{"function":"avg","column":"spent","alias":"avg_spent"}],"inner":{"where":{"kind":"compare","column":"ward","op":"<>","value":"surgery"},"columns":[{"name":"spent","function":"sum","column":"cost","low":-5000,"high":900050},{"name":"oldest","function":"max","column":"age"}]}}

-- title: a sum that is only compared
SELECT COUNT(*) FROM (SELECT patient_id, SUM(cost) AS spent FROM visits GROUP BY patient_id) WHERE spent BETWEEN 10 AND 20.5
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"spent","op":">=","value":"10"},{"kind":"compare","column":"spent","op":"<=","value":"20.5"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}],"inner":{"where":null,"columns":[{"name":"spent","function":"sum","column":"cost","low":999,"high":2051}]}}

-- title: baskets of two values
SELECT COUNT(*) AS both FROM (SELECT patient_id FROM visits GROUP BY patient_id
HAVING COUNT(*) FILTER (WHERE ward = 'surgery') > 0 AND SUM(CASE WHEN ward = 'medicine' THEN 1 ELSE 0 END) > 0)
-- plan:
{"kind":"query","where":{"kind":"and","operands":[{"kind":"compare","column":"having_1","op":">","value":"0"},{"kind":"compare","column":"having_2","op":">","value":"0"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"both"}],"inner":{"where":null,"columns":[{"name":"having_1","function":"count","column":null,"where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"high":1},{"name":"having_2","function":"count","column":null,"where":{"kind":"compare","column":"ward","op":"=","value":"medicine"},"high":1}]}}

-- title: COUNT_IF, COUNT of a CASE, and the same figure twice
SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id
HAVING COUNT_IF(smoker) >= 1 AND COUNT(CASE WHEN age > 50 THEN 1 END) IN (1, 2) OR COUNT_IF(smoker) >= 1)
-- plan:
{"kind":"query","where":{"kind":"or","operands":[{"kind":"and","operands":[{"kind":"compare","column":"having_1","op":">=","value":"1"},{"kind":"one_of","column":"having_2","values":["1","2"]}]},{"kind":"compare","column":"having_1","op":">=","value":"1"}]},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}],"inner":{"where":null,"columns":[{"name":"having_1","function":"count","column":null,"where":{"kind":"compare","column":"smoker","op":"=","value":"true"},"high":2},{"name":"having_2","function":"count","column":null,"where":{"kind":"compare","column":"age","op":">","value":"50"},"high":3}]}}

-- title: any value, and the persons of a group counted by name
SELECT w, COUNT(DISTINCT patient_id) AS n FROM (SELECT patient_id, ANY_VALUE(ward) AS w, BOOL_OR(smoker) AS ever
FROM visits GROUP BY ALL) WHERE ever GROUP BY w
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ever","op":"=","value":"true"},"group_by":["w"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"w","function":"first","column":"ward"},{"name":"ever","function":"max","column":"smoker"}]}}

-- title: a bound outside
SELECT AVG(LEAST(n, 20)) AS mean, SUM(GREATEST(LEAST(s, 500), -50)) AS s FROM (SELECT patient_id, COUNT(*) AS n, SUM(cost) AS s FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"n_up_to_20","alias":"mean"},{"function":"sum","column":"s_up_to_500_from_-50","alias":"s"}],"inner":{"where":null,"columns":[{"name":"n_up_to_20","function":"count","column":null,"high":20},{"name":"s_up_to_500_from_-50","function":"sum","column":"cost","low":-5000,"high":50000}]}}

-- title: a count without a bound has that of the policy's rows
SELECT AVG(n) AS mean FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"n","alias":"mean"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":2}]}}

-- title: groups of a count without a bound
SELECT n, COUNT(*) AS persons FROM (SELECT patient_id, COUNT(age) AS n FROM visits GROUP BY patient_id) GROUP BY n
-- plan:
{"kind":"query","where":null,"group_by":["n"],"aggregates":[{"function":"count","column":null,"alias":"persons"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":"age","high":2}]}}

-- title: a sum without a bound, of a column that can be below 0
SELECT AVG(s) AS mean FROM (SELECT patient_id, SUM(cost) AS s FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"s","alias":"mean"}],"inner":{"where":null,"columns":[{"name":"s","function":"sum","column":"cost","low":-10000,"high":1000000}]}}

-- title: a sum with one bound of two
SELECT AVG(s) AS mean, AVG(t) AS other FROM (SELECT patient_id, LEAST(SUM(cost), 100) AS s, GREATEST(SUM(cost), -5) AS t FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"s","alias":"mean"},{"function":"avg","column":"t","alias":"other"}],"inner":{"where":null,"columns":[{"name":"s","function":"sum","column":"cost","low":-10000,"high":10000},{"name":"t","function":"sum","column":"cost","low":-500,"high":1000000}]}}

-- title: a count that is compared beyond the policy's rows, and averaged
SELECT AVG(n) AS mean FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) WHERE n < 10
-- plan:
{"kind":"query","where":{"kind":"compare","column":"n","op":"<","value":"10"},"group_by":[],"aggregates":[{"function":"avg","column":"n","alias":"mean"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":11}]}}

-- title: two figures of a person compared
SELECT COUNT(*) AS n FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) > COUNT(age))
-- plan:
{"kind":"query","where":{"kind":"compare_columns","column":"having_1","op":">","other":"having_2"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"having_1","function":"count","column":null,"high":2},{"name":"having_2","function":"count","column":"age","high":2}]}}

-- title: SUM(1) of a person counts rows
SELECT AVG(n) AS mean FROM (SELECT patient_id, SUM(1) AS n FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"n","alias":"mean"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":2}]}}

-- title: a column that nobody reads is not asked
SELECT COUNT(*) FROM (SELECT patient_id, COUNT(*) AS n, SUM(cost) AS s FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}],"inner":{"where":null,"columns":[]}}

-- title: a bound between two steps
SELECT AVG(s) FROM (SELECT patient_id, LEAST(SUM(stay), 9.5) AS s FROM visits GROUP BY patient_id)
-- error:
the bounds 0 to 9.5 of SUM(stay) at line 1, column 40 are none
-- hint:
write multiples of 1, as in LEAST(SUM(stay), 600)

-- title: a count of a person up to nothing
SELECT AVG(s) FROM (SELECT patient_id, LEAST(COUNT(*), 0) AS s FROM visits GROUP BY patient_id)
-- error:
the bound of COUNT(*) at line 1, column 40 is none
-- hint:
write LEAST(COUNT(*), 20), with a whole number from 1 to 1,000,000

-- title: a bound of a figure that has one
SELECT AVG(s) FROM (SELECT patient_id, LEAST(MIN(age), 50) AS s FROM visits GROUP BY patient_id)
-- error:
MIN(age) at line 1, column 40 has the bounds of its column already
-- hint:
write MIN(age)

-- title: more groups of a count than a domain may have
SELECT n, COUNT(*) FROM (SELECT patient_id, LEAST(COUNT(*), 5000) AS n FROM visits GROUP BY patient_id) GROUP BY n
-- error:
too many groups at line 1, column 8: 'n' has 5,000 values, at most 1,000 are groups
-- hint:
write a smaller bound, as in LEAST(COUNT(*), 20)

-- title: a list of persons
SELECT patient_id, COUNT(*) FROM visits GROUP BY patient_id
-- error:
the question lists single persons at line 1, column 8, and no row leaves a silo
-- hint:
ask about all of them, as in SELECT n, COUNT(*) FROM (SELECT patient_id, LEAST(COUNT(*), 20) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: a person in an answer
SELECT patient_id FROM visits
-- error:
column 'patient_id' at line 1, column 8 names single persons, and never leaves a silo
-- hint:
count them with COUNT(DISTINCT patient_id), or make one row of each: SELECT n, COUNT(*) FROM (SELECT patient_id, LEAST(COUNT(*), 20) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: one person in a condition
SELECT COUNT(*) FROM visits WHERE patient_id = 'x'
-- error:
column 'patient_id' at line 1, column 35 names single persons, and never leaves a silo
-- hint:
count them with COUNT(DISTINCT patient_id), or make one row of each: SELECT n, COUNT(*) FROM (SELECT patient_id, LEAST(COUNT(*), 20) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: a column of single rows inside
SELECT COUNT(*) FROM (SELECT patient_id, ward FROM visits GROUP BY patient_id)
-- error:
ward at line 1, column 42 differs between the rows of a person
-- hint:
take its least or greatest value, MIN or MAX, or ANY_VALUE; or group by it too

-- title: a limit inside
SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id LIMIT 3)
-- error:
LIMIT is not supported inside at line 1, column 30
-- hint:
supported: SELECT dimensions and COUNT(*), COUNT(col), SUM(col), AVG(col), COUNT(DISTINCT person), MEDIAN and QUANTILE_CONT, VAR_* and STDDEV_*(col), COVAR_*, CORR and REGR_*(col, col), HISTOGRAM, SURVIVAL, FROM one table or tables joined on the person WHERE comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT GROUP BY dimensions, CASE, buckets such as x // 10; and whatever is computed from their figures

-- title: two figures of one name inside
SELECT AVG(a) FROM (SELECT patient_id, MIN(age) AS a, MAX(age) AS a FROM visits GROUP BY patient_id)
-- error:
the name 'a' is used twice inside at line 1, column 52
-- hint:
give every column its own name with AS

-- title: a name that the wire has no room for
SELECT AVG("a b") FROM (SELECT patient_id, MIN(age) AS "a b" FROM visits GROUP BY patient_id)
-- error:
the column 'a b' inside cannot be asked at line 1, column 48
-- hint:
name it with AS, in letters, digits and _

-- title: a row of a person read twice
WITH f AS (SELECT patient_id FROM visits GROUP BY patient_id) SELECT COUNT(*) FROM f, f
-- error:
'f' is read 2 times, an inner question is read once at line 1, column 19

-- title: a least value without bounds or a domain
SELECT COUNT(*) FROM (SELECT patient_id, MIN(region) AS r FROM visits GROUP BY patient_id) WHERE r = 'x'
-- error:
column 'region' at line 1, column 46 has neither a closed domain nor bounds
-- hint:
take a dimension or a measure

-- title: an unknown column of the rows of persons
SELECT AVG(m) FROM (SELECT patient_id, LEAST(COUNT(*), 3) AS n FROM visits GROUP BY patient_id)
-- error:
unknown column 'm' at line 1, column 12
-- hint:
known: n

-- title: a count that is grouped by, and compared in another group
SELECT n, n > 1 AS again, COUNT(*) AS persons FROM (SELECT patient_id, LEAST(COUNT(*), 4) AS n FROM visits GROUP BY patient_id) GROUP BY n, again
-- error:
'n' is grouped by, and compared in another group at line 1, column 8
-- hint:
group by it alone, and add up its groups afterwards

-- title: the largest figure of a person
SELECT ward, MAX(n) FROM (SELECT patient_id, MIN(ward) AS ward, COUNT(*) AS n FROM visits GROUP BY patient_id HAVING COUNT(*) > 1) GROUP BY ward
-- error:
MAX(n) is not supported at line 1, column 18
-- hint:
one person decides it, so no interval is honest; ask the average, and count the rows above a value: SELECT ward, AVG(n), SUM(CASE WHEN n > 1 THEN 1 ELSE 0 END) AS n_above FROM (SELECT patient_id, MIN(ward) AS ward, COUNT(*) AS n FROM visits GROUP BY patient_id HAVING COUNT(*) > 1) GROUP BY ward

-- title: the different figures of persons
SELECT DISTINCT n FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id)
-- error:
the question has no aggregate at line 1, column 17
-- hint:
rows never leave a silo; count those of each group: SELECT n, COUNT(*) AS n_rows FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) GROUP BY n

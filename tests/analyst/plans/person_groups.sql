-- title: a row of a person in each group
SELECT ward, AVG(n) AS mean FROM (SELECT patient_id, ward, LEAST(COUNT(*), 20) AS n FROM visits GROUP BY patient_id, ward) GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"avg","column":"n","alias":"mean"}],"inner":{"where":null,"columns":[{"name":"ward","function":"each","column":"ward"},{"name":"n","function":"count","column":null,"high":20}]}}

-- title: who was there often, by group
SELECT ward, COUNT(*) AS n FROM (SELECT patient_id, ward FROM visits GROUP BY 1, 2 HAVING COUNT(*) > 1) GROUP BY ward
-- plan:
{"kind":"query","where":{"kind":"compare","column":"having_1","op":">","value":"1"},"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"ward","function":"each","column":"ward"},{"name":"having_1","function":"count","column":null,"high":2}]}}

-- title: the different groups of persons, counted
SELECT grade, COUNT(*) AS n FROM (SELECT DISTINCT patient_id, grade FROM visits WHERE age > 50) GROUP BY grade
-- plan:
{"kind":"query","where":null,"group_by":["grade"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":{"kind":"compare","column":"age","op":">","value":"50"},"columns":[{"name":"grade","function":"each","column":"grade"}]}}

-- title: the persons of rows by group
SELECT COUNT(DISTINCT t.patient_id) AS n, COUNT(t.patient_id) AS groups FROM (SELECT patient_id, ward, MAX(age) AS oldest FROM visits GROUP BY ALL) t WHERE t.oldest > 60
-- plan:
{"kind":"query","where":{"kind":"compare","column":"oldest","op":">","value":"60"},"group_by":[],"aggregates":[{"function":"persons","column":null,"alias":"n"},{"function":"count","column":null,"alias":"groups"}],"inner":{"where":null,"columns":[{"name":"ward","function":"each","column":"ward"},{"name":"oldest","function":"max","column":"age"}]}}

-- title: persons by another name
SELECT COUNT(DISTINCT who) AS n FROM (SELECT v.patient_id AS who, v.ward FROM visits v GROUP BY v.patient_id, v.ward)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"persons","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"ward","function":"each","column":"ward"}]}}

-- title: a bucket inside
SELECT age_from, COUNT(*) AS n FROM (SELECT patient_id, age // 50 * 50 AS age_from FROM visits GROUP BY patient_id, age_from) GROUP BY age_from
-- plan:
{"kind":"query","where":null,"group_by":["age_from"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[],"cases":[{"name":"age_from","whens":[{"kind":"compare","column":"age","op":"<","value":"50"},{"kind":"compare","column":"age","op":"<","value":"100"},{"kind":"not","operand":{"kind":"is_null","column":"age"}}],"labels":["0","50","100"],"otherwise":null,"type":"int"}]}}

-- title: a bool inside keeps its name
SELECT smoker, COUNT(*) AS n FROM (SELECT patient_id, smoker FROM visits GROUP BY patient_id, smoker) GROUP BY smoker
-- plan:
{"kind":"query","where":null,"group_by":["group_1"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[],"cases":[{"name":"group_1","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"},{"kind":"not","operand":{"kind":"compare","column":"smoker","op":"=","value":"true"}}],"labels":["true","false"],"otherwise":null,"type":"bool"}]}}

-- title: a key that is not selected is one all the same
SELECT COUNT(*) AS n FROM (SELECT patient_id FROM visits GROUP BY patient_id, ward)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"ward","function":"each","column":"ward"}]}}

-- title: a key in a condition outside, and one in an expression
SELECT grade > 0 AS good, COUNT(*) AS n FROM (SELECT patient_id, ward, grade FROM visits GROUP BY ALL) WHERE ward = 'surgery' GROUP BY good
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"group_by":["good"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"good","whens":[{"kind":"compare","column":"grade","op":"=","value":"0"},{"kind":"one_of","column":"grade","values":["1","2"]}],"labels":["false","true"],"otherwise":null,"type":"bool"}],"inner":{"where":null,"columns":[{"name":"ward","function":"each","column":"ward"},{"name":"grade","function":"each","column":"grade"}]}}

-- title: who was in several groups
SELECT COUNT(*) AS n FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(DISTINCT ward) >= 2)
-- plan:
{"kind":"query","where":{"kind":"compare","column":"having_1","op":">=","value":"2"},"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"having_1","function":"distinct","column":"ward","high":2}]}}

-- title: the number of groups of each
SELECT n, COUNT(*) AS persons FROM (SELECT patient_id, COUNT(DISTINCT grade) AS n FROM visits GROUP BY patient_id) GROUP BY n
-- plan:
{"kind":"query","where":null,"group_by":["n"],"aggregates":[{"function":"count","column":null,"alias":"persons"}],"inner":{"where":null,"columns":[{"name":"n","function":"distinct","column":"grade","high":3}]}}

-- title: a cohort, and where its persons were
SELECT cohort, grade, COUNT(*) AS n FROM (SELECT patient_id, grade, MIN(grade) OVER (PARTITION BY patient_id) AS cohort FROM visits GROUP BY patient_id, grade) GROUP BY cohort, grade
-- plan:
{"kind":"query","where":null,"group_by":["cohort","grade"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"inner":{"where":null,"columns":[{"name":"grade","function":"each","column":"grade"},{"name":"cohort","function":"first","column":"grade","of_person":true}]}}

-- title: a figure of a group, of those who come often
SELECT ward, AVG(paid) AS paid FROM (SELECT patient_id, ward, GREATEST(LEAST(SUM(cost), 900), 0) AS paid, SUM(COUNT(*)) OVER (PARTITION BY patient_id) AS k FROM visits GROUP BY ALL) WHERE k > 3 GROUP BY ward
-- plan:
{"kind":"query","where":{"kind":"compare","column":"k","op":">","value":"3"},"group_by":["ward"],"aggregates":[{"function":"avg","column":"paid","alias":"paid"}],"inner":{"where":null,"columns":[{"name":"ward","function":"each","column":"ward"},{"name":"paid","function":"sum","column":"cost","low":0,"high":90000},{"name":"k","function":"count","column":null,"high":4,"of_person":true}]}}

-- title: whether a person has a row
SELECT SUM(a) AS n FROM (SELECT patient_id, MAX(CASE WHEN ward = 'surgery' THEN 1 ELSE 0 END) AS a FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"sum","column":"a","alias":"n"}],"inner":{"where":null,"columns":[{"name":"a","function":"count","column":null,"where":{"kind":"compare","column":"ward","op":"=","value":"surgery"},"high":1}]}}

-- title: a figure that a CASE outside compares needs no bound
SELECT CASE WHEN n > 5 THEN 'often' ELSE 'seldom' END AS who, COUNT(*) AS persons FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) GROUP BY who
-- plan:
{"kind":"query","where":null,"group_by":["who"],"aggregates":[{"function":"count","column":null,"alias":"persons"}],"cases":[{"name":"who","whens":[{"kind":"compare","column":"n","op":">","value":"5"}],"labels":["often"],"otherwise":"seldom"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":6}]}}

-- title: a measure as a key
SELECT COUNT(*) FROM (SELECT patient_id, age FROM visits GROUP BY ALL)
-- error:
cannot group by 'age' at line 1, column 42: no policy gives it a closed domain
-- hint:
group by buckets, such as age // 10 * 10 AS age_from

-- title: a measure without a filter as a key
SELECT COUNT(*) FROM (SELECT patient_id, stay FROM visits GROUP BY ALL)
-- error:
cannot group by 'stay' at line 1, column 42: no policy gives it a closed domain
-- hint:
group by the person alone inside

-- title: an aggregate as a key
SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id, COUNT(*))
-- error:
GROUP BY takes the person, columns, and expressions of columns at line 1, column 74
-- hint:
supported: SELECT dimensions and COUNT(*), COUNT(col), SUM(col), AVG(col), COUNT(DISTINCT person), MEDIAN and QUANTILE_CONT, VAR_* and STDDEV_*(col), COVAR_*, CORR and REGR_*(col, col), HISTOGRAM, SURVIVAL, FROM one table or tables joined on the person WHERE comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT GROUP BY dimensions, CASE, buckets such as x // 10; and whatever is computed from their figures

-- title: a case that is compared outside
SELECT COUNT(*) FROM (SELECT patient_id, age // 50 AS old FROM visits GROUP BY ALL) WHERE old > 1
-- error:
'old' is a group that is made inside, and nothing else around it at line 1, column 91
-- hint:
group by it as it is; a condition on what it is made of stands inside, in WHERE

-- title: a case that is averaged outside
SELECT AVG(old) FROM (SELECT patient_id, age // 50 AS old FROM visits GROUP BY ALL)
-- error:
'old' is a group that is made inside, and nothing else around it at line 1, column 12
-- hint:
group by it as it is; a condition on what it is made of stands inside, in WHERE

-- title: rows by group made one again
SELECT COUNT(*) FROM (SELECT patient_id FROM (SELECT patient_id, ward FROM visits GROUP BY ALL) GROUP BY patient_id HAVING COUNT(*) > 1)
-- error:
the rows of a person are made one twice at line 1, column 106
-- hint:
make them one at once, with each figure of all of them: SELECT n, COUNT(*) FROM (SELECT patient_id, COUNT(DISTINCT ward) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: a figure of all rows without groups
SELECT AVG(o) FROM (SELECT patient_id, MAX(age) OVER (PARTITION BY patient_id) AS o FROM visits GROUP BY patient_id)
-- error:
a window inside reads several groups of a person at line 1, column 44
-- hint:
group by patient_id and something else; without, there is one row of each person

-- title: a window that HAVING cuts
SELECT COUNT(*) FROM (SELECT patient_id, ward, MIN(ward) OVER (PARTITION BY patient_id) AS first FROM visits GROUP BY ALL HAVING COUNT(*) > 1) WHERE first = 'surgery'
-- error:
a window inside reads what HAVING leaves at line 1, column 52
-- hint:
write the condition outside, in WHERE, by the name of what it compares

-- title: a window of other rows
SELECT COUNT(*) FROM (SELECT patient_id, ward, MIN(ward) OVER (PARTITION BY ward) AS first FROM visits GROUP BY ALL) WHERE first = 'surgery'
-- error:
MIN(ward) OVER (PARTITION BY ward) is not supported inside at line 1, column 52
-- hint:
silos compare no two rows of a person; count in how many groups a person has rows: SELECT n, COUNT(*) FROM (SELECT patient_id, COUNT(DISTINCT ward) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: a least count of groups
SELECT AVG(n) FROM (SELECT patient_id, ward, MIN(COUNT(*)) OVER (PARTITION BY patient_id) AS n FROM visits GROUP BY ALL)
-- error:
MIN(COUNT(*)) OVER (PARTITION BY patient_id) is not supported inside at line 1, column 50
-- hint:
silos compare no two rows of a person; count in how many groups a person has rows: SELECT n, COUNT(*) FROM (SELECT patient_id, COUNT(DISTINCT ward) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: a rank of persons
SELECT COUNT(*) FROM (SELECT patient_id, SUM(age) AS s, PERCENT_RANK() OVER (ORDER BY SUM(age)) AS r FROM visits GROUP BY patient_id) WHERE r > 0.9
-- error:
PERCENT_RANK() OVER (ORDER BY SUM(age)) is not supported inside at line 1, column 57
-- hint:
a rank compares persons; group them by what each comes to: SELECT n, COUNT(*) FROM (SELECT patient_id, LEAST(COUNT(*), 20) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: an average inside
SELECT AVG(a) FROM (SELECT patient_id, AVG(age) AS a FROM visits GROUP BY patient_id)
-- error:
AVG(age) is not supported inside at line 1, column 40
-- hint:
ask the sum and the number of a person's cells, SUM(age) AS s and COUNT(age) AS n, and divide outside

-- title: a middle value inside
SELECT AVG(a) FROM (SELECT patient_id, MEDIAN(age) AS a FROM visits GROUP BY patient_id)
-- error:
MEDIAN(age) is not supported inside at line 1, column 40
-- hint:
inside, the rows of a person are made one by COUNT(*), COUNT(col), COUNT(DISTINCT col), SUM(col), MIN(col) or MAX(col), each perhaps with FILTER (WHERE ...); a person's rows have a least and a greatest value, and no middle

-- title: different values of a measure inside
SELECT AVG(a) FROM (SELECT patient_id, COUNT(DISTINCT age) AS a FROM visits GROUP BY patient_id)
-- error:
COUNT(DISTINCT age) is not supported inside at line 1, column 40
-- hint:
a column with a closed domain has different values that are counted; others are not

-- title: the first value inside
SELECT AVG(a) FROM (SELECT patient_id, ARG_MIN(age, grade) AS a FROM visits GROUP BY patient_id)
-- error:
ARG_MIN(age, grade) is not supported inside at line 1, column 48
-- hint:
silos compare no two rows of a person; count in how many groups a person has rows: SELECT n, COUNT(*) FROM (SELECT patient_id, COUNT(DISTINCT ward) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: a difference inside
SELECT AVG(a) FROM (SELECT patient_id, MAX(age) - MIN(age) AS a FROM visits GROUP BY patient_id)
-- error:
MAX(age) - MIN(age) is not supported inside at line 1, column 44
-- hint:
name each figure inside, as in MAX(age) AS a, and compute outside

-- title: a truth of any row
SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING BOOL_OR(ward = 'surgery'))
-- error:
BOOL_OR(CAST(ward = 'surgery' AS BOOLEAN)) is not supported inside at line 1, column 80
-- hint:
count the rows: COUNT(*) FILTER (WHERE ward = 'surgery') > 0

-- title: a truth of all rows
SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING BOOL_AND(ward = 'surgery'))
-- error:
BOOL_AND(CAST(ward = 'surgery' AS BOOLEAN)) is not supported inside at line 1, column 80
-- hint:
count the rows of which it is not true: COUNT(*) FILTER (WHERE NOT (ward = 'surgery')) = 0

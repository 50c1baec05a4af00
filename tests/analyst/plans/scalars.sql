-- title: a share of all rows
SELECT COUNT(*) * 100.0 / (SELECT COUNT(*) FROM visits) AS pct FROM visits WHERE smoker
-- plan:
{"kind":"query","where":null,"group_by":["hidden_1"],"aggregates":[{"function":"count","column":null,"alias":"hidden_count_1"}],"cases":[{"name":"hidden_1","whens":[{"kind":"compare","column":"smoker","op":"=","value":"false"},{"kind":"compare","column":"smoker","op":"=","value":"true"}],"labels":["0","1"],"otherwise":"0"}]}

-- title: two subqueries without FROM
SELECT (SELECT COUNT(*) FROM visits WHERE smoker) * 1.0 / (SELECT COUNT(*) FROM visits) AS rate
-- plan:
{"kind":"query","where":null,"group_by":["hidden_1"],"aggregates":[{"function":"count","column":null,"alias":"hidden_count_1"}],"cases":[{"name":"hidden_1","whens":[{"kind":"compare","column":"smoker","op":"=","value":"false"},{"kind":"compare","column":"smoker","op":"=","value":"true"}],"labels":["0","1"],"otherwise":"0"}]}

-- title: a condition that both readings have stays in WHERE
SELECT COUNT(*) / (SELECT COUNT(*) FROM visits v WHERE v.age > 60) AS r FROM visits WHERE age > 60 AND smoker
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"60"},"group_by":["hidden_1"],"aggregates":[{"function":"count","column":null,"alias":"hidden_count_1"}],"cases":[{"name":"hidden_1","whens":[{"kind":"compare","column":"smoker","op":"=","value":"false"},{"kind":"compare","column":"smoker","op":"=","value":"true"}],"labels":["0","1"],"otherwise":"0"}]}

-- title: a group beside one of the groups
SELECT ward, AVG(smoker::INT) / (SELECT AVG(smoker::INT) FROM visits WHERE ward = 'surgery') AS di FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"avg","column":"smoker","alias":"f1"},{"function":"sum","column":"smoker","alias":"f2"},{"function":"count","column":"smoker","alias":"f3"}]}

-- title: groups above the average group
SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING COUNT(*) > (SELECT AVG(n) FROM (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward))
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"f1"}]}

-- title: persons that meet a condition, of all
WITH f AS (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) SELECT COUNT(*) / (SELECT COUNT(*) FROM f) AS again FROM f WHERE n > 1
-- plan:
{"kind":"query","where":null,"group_by":["hidden_1"],"aggregates":[{"function":"count","column":null,"alias":"hidden_count_1"}],"cases":[{"name":"hidden_1","whens":[{"kind":"compare","column":"n","op":">","value":"1"}],"labels":["1"],"otherwise":"0"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":2}]}}

-- title: figures beside a total
WITH t AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) SELECT ward, n / (SELECT COUNT(*) FROM visits) AS s FROM t
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"f1"}]}

-- title: grouped figures that are joined
WITH a AS (SELECT ward, COUNT(*) AS n FROM visits WHERE smoker GROUP BY ward), b AS (SELECT ward, COUNT(*) AS m FROM visits GROUP BY ward) SELECT a.ward, n * 1.0 / m AS rate FROM a JOIN b ON a.ward = b.ward
-- plan:
{"kind":"query","where":null,"group_by":["ward","hidden_1"],"aggregates":[{"function":"count","column":null,"alias":"hidden_count_1"}],"cases":[{"name":"hidden_1","whens":[{"kind":"compare","column":"smoker","op":"=","value":"false"},{"kind":"compare","column":"smoker","op":"=","value":"true"}],"labels":["0","1"],"otherwise":"0"}]}

-- title: a grouped figure beside a joined total
WITH a AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward), b AS (SELECT COUNT(*) AS m FROM visits) SELECT ward, n / m AS s FROM a CROSS JOIN b
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"f1"}]}

-- title: a number of persons with a condition has no place beside another
SELECT COUNT(*) / (SELECT COUNT(DISTINCT patient_id) FROM visits WHERE smoker) AS x FROM visits
-- error:
the question reads 'visits' and then 'visits' at line 1, column 59
-- hint:
ask several questions with ; between them; a share is COUNT(*) FILTER (WHERE ...) / COUNT(*), the total of all groups is SUM(COUNT(*)) OVER ()

-- title: a median of all groups
SELECT ward, AVG(cost) - (SELECT MEDIAN(cost) FROM visits) AS d FROM visits GROUP BY ward
-- error:
the question reads 'visits' and then 'visits' at line 1, column 52
-- hint:
ask several questions with ; between them; a share is COUNT(*) FILTER (WHERE ...) / COUNT(*), the total of all groups is SUM(COUNT(*)) OVER ()

-- title: rows beside a figure
SELECT age - (SELECT AVG(age) FROM visits) AS d FROM visits
-- error:
the question reads 'visits' and then 'visits' at line 1, column 36
-- hint:
ask several questions with ; between them; a share is COUNT(*) FILTER (WHERE ...) / COUNT(*), the total of all groups is SUM(COUNT(*)) OVER ()

-- title: figures of other groups that are joined
SELECT a.n FROM (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) a JOIN (SELECT grade, COUNT(*) AS n FROM visits GROUP BY grade) b ON a.n = b.n
-- error:
JOIN is not supported at line 1, column 87
-- hint:
figures of one table need no join: ask one question, with COUNT(*) FILTER (WHERE ...) AS n, COUNT(*) AS m, by one GROUP BY

-- title: a group beside all rows that meet a condition
SELECT ward, COUNT(*) / (SELECT COUNT(*) FROM visits WHERE smoker) AS s FROM visits WHERE age > 40 GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":"measure_1","alias":"f1"},{"function":"count","column":"measure_2","alias":"f2"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"age","op":">","value":"40"}],"results":[{"kind":"constant","value":"1"}],"otherwise":null}},{"name":"measure_2","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"constant","value":"1"}],"otherwise":null}}]}

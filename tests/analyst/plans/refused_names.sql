-- title: a text in double quotes
SELECT COUNT(*) FROM visits WHERE ward = "surgery"
-- error:
unknown column 'surgery' at line 1, column 42
-- hint:
a text stands in single quotes, as in 'surgery'; known: ward, grade, age, cost, smoker, region, stay

-- title: texts without quotes
SELECT COUNT(*) FROM visits WHERE ward IN (surgery, medicine)
-- error:
surgery is no literal at line 1, column 44
-- hint:
a text stands in single quotes, as in 'surgery'

-- title: a parameter
SELECT COUNT(*) FROM visits WHERE age > ?
-- error:
? is no literal
-- hint:
write the value itself in its place

-- title: a schema, and the tables there are
SELECT COUNT(*) FROM main.visits
-- error:
FROM must name one table, without schema at line 1, column 22
-- hint:
tables that silos open: visits

-- title: a table function
SELECT COUNT(*) FROM read_csv('/etc/passwd')
-- error:
a function is no table at line 1, column 22
-- hint:
tables that silos open: visits

-- title: a number beside an aggregate
SELECT age, COUNT(*) FROM visits
-- error:
column 'age' at line 1, column 8 is neither grouped by nor aggregated
-- hint:
select and group by age // 10 * 10, or aggregate it, as in AVG(age): rows never leave a silo

-- title: an average of a dimension
SELECT AVG(grade) FROM visits
-- error:
cannot aggregate 'grade' at line 1, column 12: no policy gives it bounds
-- hint:
average its groups: SELECT SUM(grade * n) / SUM(n) AS average FROM (SELECT grade, COUNT(*) AS n FROM visits WHERE grade IS NOT NULL GROUP BY grade)

-- title: a condition of a least value
SELECT MIN(age) FILTER (WHERE smoker) FROM visits
-- error:
FILTER is not supported here at line 1, column 12
-- hint:
ask for it in a question of its own, with the condition in WHERE

-- title: what two questions have in common
SELECT ward, COUNT(*) FROM visits GROUP BY ward INTERSECT SELECT 'all', COUNT(*) FROM visits
-- error:
INTERSECT of two questions is not supported at line 1, column 8
-- hint:
write UNION ALL of whole questions, or ask several with ; between them; to read one twice: WITH t AS (SELECT a, COUNT(*) AS n FROM ... GROUP BY a) SELECT a, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t

-- title: a question in a condition
SELECT COUNT(*) FROM visits WHERE age > (SELECT AVG(age) FROM visits)
-- error:
the question reads 'visits' and then 'visits' at line 1, column 63
-- hint:
ask the question in WHERE first, and write what it gives in its place

-- title: a name that the answer does not have
SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING m > 3
-- error:
column 'm' is neither grouped by nor aggregated at line 1, column 61
-- hint:
add it to GROUP BY, or take a figure of it, such as AVG; the answer has n

-- title: a window over rows
SELECT ward, AVG(age) OVER (PARTITION BY ward) FROM visits
-- error:
the question has no aggregate at line 1, column 8
-- hint:
a window reads the figures of groups, as in RANK() OVER (ORDER BY COUNT(*)) with GROUP BY

-- title: a GROUP BY of nothing
SELECT COUNT(*) FROM visits GROUP BY
-- error:
GROUP BY names no column at line 1, column 8

-- title: EXPLAIN
EXPLAIN SELECT COUNT(*) FROM visits
-- error:
the question does not begin with SELECT
-- hint:
`consilo explain` shows what a question computes, and `consilo query --preview` what it costs

-- title: tables
SHOW TABLES
-- error:
the question does not begin with SELECT
-- hint:
`consilo silos` shows the tables and their columns

-- title: TOP
SELECT TOP 3 ward, COUNT(*) FROM visits GROUP BY ward
-- error:
broken SQL at line 1, column 12 near '3'
-- hint:
write LIMIT at the end of the question, as in LIMIT 3

-- title: backquotes
SELECT `ward`, COUNT(*) FROM visits GROUP BY `ward`
-- error:
broken SQL at line 1, column 13 near '`'
-- hint:
a name stands in double quotes, as in "sex"

-- title: a number without a domain
SELECT cost, COUNT(*) FROM visits GROUP BY cost
-- error:
cannot group by 'cost' at line 1, column 44: no policy gives it a closed domain
-- hint:
group by buckets, such as FLOOR(cost / 500) * 500; columns with a domain: ward, grade

-- title: SELECT *
SELECT * FROM visits
-- error:
SELECT * is not supported, rows never leave a silo at line 1, column 8

-- title: SELECT * beside an aggregate
SELECT COUNT(*), * FROM visits
-- error:
SELECT * is not supported, rows never leave a silo at line 1, column 18

-- title: SELECT table.*
SELECT visits.* FROM visits
-- error:
SELECT * is not supported, rows never leave a silo at line 1, column 8

-- title: a plain column
SELECT age FROM visits
-- error:
column 'age' at line 1, column 8 is neither grouped by nor aggregated

-- title: a column beside an aggregate
SELECT age, COUNT(*) FROM visits
-- error:
column 'age' at line 1, column 8 is neither grouped by nor aggregated

-- title: no aggregate
SELECT ward FROM visits GROUP BY ward
-- error:
the question has no aggregate

-- title: another function
SELECT MEDIAN(age) FROM visits
-- error:
MEDIAN(age) is not supported at line 1, column 8

-- title: arithmetic
SELECT SUM(age) + 1 FROM visits
-- error:
SUM(age) + 1 is not supported at line 1, column 8

-- title: an expression in an aggregate
SELECT SUM(age + 1) FROM visits
-- error:
SUM takes one plain column at line 1, column 8

-- title: an aggregate of a constant
SELECT SUM(1) FROM visits
-- error:
SUM takes one plain column at line 1, column 8

-- title: SUM(*)
SELECT SUM(*) FROM visits
-- error:
SUM takes one plain column at line 1, column 8

-- title: two arguments
SELECT COUNT(age, stay) FROM visits
-- error:
COUNT takes one plain column at line 1, column 8

-- title: FILTER
SELECT COUNT(age) FILTER (WHERE smoker) FROM visits
-- error:
COUNT(age) FILTER(WHERE smoker) is not supported at line 1, column 8

-- title: COUNT(DISTINCT)
SELECT COUNT(DISTINCT age) FROM visits
-- error:
COUNT takes one plain column at line 1, column 8

-- title: DISTINCT
SELECT DISTINCT ward FROM visits
-- error:
DISTINCT is not supported

-- title: a window
SELECT COUNT(*) OVER () FROM visits
-- error:
a window is not supported at line 1, column 8

-- title: an alias twice
SELECT COUNT(*) AS n, SUM(age) AS n FROM visits
-- error:
the output name 'n' is used twice
-- hint:
give every column of the answer its own name with AS; an aggregate n also takes n_low, n_high, n_sd

-- title: a default name twice
SELECT COUNT(*), COUNT(*) FROM visits
-- error:
the output name 'count_star' is used twice

-- title: a dimension under the name of an interval's end
SELECT ward AS n_low, COUNT(*) AS n FROM visits GROUP BY ward
-- error:
the output name 'n_low' is used twice

-- title: an aggregate under the name of another's deviation
SELECT COUNT(*) AS n, SUM(age) AS n_sd FROM visits
-- error:
the output name 'n_sd' is used twice

-- title: a dimension twice under one name
SELECT ward, ward, COUNT(*) AS n FROM visits GROUP BY ward
-- error:
the output name 'ward' is used twice

-- title: a name of two lines
SELECT ward AS "two
lines", COUNT(*) AS n FROM visits GROUP BY ward
-- error:
an output name is no printable text of at most 120 characters

-- title: INSERT
INSERT INTO visits VALUES (1)
-- error:
INSERT is not supported: nothing can be written at line 1, column 13

-- title: UPDATE
UPDATE visits SET age = 1
-- error:
UPDATE is not supported: nothing can be written at line 1, column 8

-- title: DELETE
DELETE FROM visits
-- error:
DELETE is not supported: nothing can be written at line 1, column 13

-- title: DROP
DROP TABLE visits
-- error:
DROP is not supported: nothing can be written at line 1, column 12

-- title: CREATE
CREATE TABLE x (a INT)
-- error:
CREATE is not supported: nothing can be written at line 1, column 14

-- title: COPY
COPY visits TO 'x.csv'
-- error:
COPY is not supported: nothing can be written at line 1, column 6

-- title: ALTER
ALTER TABLE visits ADD COLUMN x INT
-- error:
ALTER is not supported: nothing can be written at line 1, column 13

-- title: JOIN
SELECT COUNT(*) FROM visits JOIN other ON TRUE
-- error:
JOIN is not supported at line 1, column 34

-- title: two tables
SELECT COUNT(*) FROM visits, visits
-- error:
JOIN is not supported at line 1, column 30

-- title: a subquery in FROM
SELECT COUNT(*) FROM (SELECT 1)
-- error:
a subquery is not supported at line 1, column 30

-- title: a subquery in WHERE
SELECT COUNT(*) FROM visits
WHERE age IN (SELECT 1)
-- error:
a subquery is not supported at line 2, column 22

-- title: EXISTS
SELECT COUNT(*) FROM visits WHERE EXISTS (SELECT 1)
-- error:
a subquery is not supported at line 1, column 50

-- title: a table alias
SELECT COUNT(*) FROM visits AS v
-- error:
FROM must name one table, without alias or schema at line 1, column 22

-- title: a schema
SELECT COUNT(*) FROM main.visits
-- error:
FROM must name one table, without alias or schema at line 1, column 22

-- title: no table
SELECT COUNT(*)
-- error:
FROM must name one table, without alias or schema at line 1, column 8

-- title: HAVING
SELECT ward, COUNT(*) FROM visits GROUP BY ward HAVING COUNT(*) > 3
-- error:
HAVING is not supported at line 1, column 56

-- title: ORDER BY
SELECT COUNT(*) FROM visits ORDER BY 1
-- error:
ORDER BY is not supported at line 1, column 38

-- title: LIMIT
SELECT COUNT(*) FROM visits LIMIT 1
-- error:
LIMIT is not supported at line 1, column 35

-- title: OFFSET
SELECT COUNT(*) FROM visits OFFSET 1
-- error:
OFFSET is not supported at line 1, column 36

-- title: QUALIFY
SELECT COUNT(*) FROM visits QUALIFY 1
-- error:
QUALIFY is not supported at line 1, column 37

-- title: USING SAMPLE
SELECT COUNT(*) FROM visits USING SAMPLE 10%
-- error:
SAMPLE is not supported at line 1, column 42

-- title: WITH
WITH a AS (SELECT 1) SELECT COUNT(*) FROM visits
-- error:
WITH is not supported at line 1, column 6

-- title: an unknown table
SELECT COUNT(*) FROM visit
-- error:
unknown table 'visit' at line 1, column 22
-- hint:
did you mean 'visits'?

-- title: an unknown column in an aggregate
SELECT AVG(agee) FROM visits
-- error:
unknown column 'agee' at line 1, column 12
-- hint:
did you mean 'age'?

-- title: an unknown column in WHERE, on the third line
SELECT COUNT(*)
FROM visits
WHERE agee > 3
-- error:
unknown column 'agee' at line 3, column 7
-- hint:
did you mean 'age'?

-- title: an unknown dimension
SELECT wards, COUNT(*) FROM visits GROUP BY wards
-- error:
unknown column 'wards' at line 1, column 45
-- hint:
did you mean 'ward'?

-- title: a column that no policy opens
SELECT COUNT(diary) FROM visits
-- error:
unknown column 'diary' at line 1, column 14
-- hint:
known: ward, grade, age, cost, smoker, region, stay

-- title: a column of another table
SELECT AVG(other.age) FROM visits
-- error:
unknown table 'other' at line 1, column 12

-- title: text is no measure
SELECT AVG(ward) FROM visits
-- error:
cannot aggregate 'ward' at line 1, column 12: it holds text

-- title: a column without bounds is no measure
SELECT SUM(grade) FROM visits
-- error:
cannot aggregate 'grade' at line 1, column 12: no policy gives it bounds

-- title: a measure is no dimension
SELECT age, COUNT(*) FROM visits GROUP BY age
-- error:
cannot group by 'age' at line 1, column 43: no policy gives it a closed domain

-- title: GROUP BY a number
SELECT ward, COUNT(*) FROM visits GROUP BY 1
-- error:
GROUP BY takes columns only at line 1, column 44

-- title: GROUP BY ALL
SELECT ward, COUNT(*) FROM visits GROUP BY ALL
-- error:
GROUP BY ALL, ROLLUP, CUBE and GROUPING SETS are not supported; name the columns

-- title: GROUP BY a column twice
SELECT COUNT(*) FROM visits GROUP BY ward, ward
-- error:
GROUP BY names a column twice at line 1, column 38

-- title: text for a number
SELECT COUNT(*) FROM visits WHERE age = '30'
-- error:
column 'age' compares with a number, found '30' at line 1, column 41

-- title: a number for text
SELECT COUNT(*) FROM visits WHERE ward = 3
-- error:
column 'ward' compares with a text, found 3 at line 1, column 42

-- title: a number for a bool
SELECT COUNT(*) FROM visits WHERE smoker = 1
-- error:
column 'smoker' compares with a bool, found 1 at line 1, column 44

-- title: a bool for a number
SELECT COUNT(*) FROM visits WHERE age = TRUE
-- error:
column 'age' compares with a number, found TRUE

-- title: text inside a list of numbers
SELECT COUNT(*) FROM visits WHERE age IN (3, 'x')
-- error:
column 'age' compares with a number, found 'x' at line 1, column 46

-- title: a value outside the domain
SELECT COUNT(*) FROM visits WHERE ward = 'surgary'
-- error:
'surgary' is not in the domain of 'ward' at line 1, column 42
-- hint:
did you mean 'surgery'?

-- title: a value outside the domain in a list
SELECT COUNT(*) FROM visits WHERE ward IN ('surgery', 'cellar')
-- error:
'cellar' is not in the domain of 'ward' at line 1, column 55
-- hint:
known: medicine, surgery, unknown

-- title: a number is no condition
SELECT COUNT(*) FROM visits WHERE age
-- error:
'age' is no condition: compare it with something at line 1, column 35

-- title: two columns compared
SELECT COUNT(*) FROM visits WHERE age = stay
-- error:
stay is no literal at line 1, column 41

-- title: two literals compared
SELECT COUNT(*) FROM visits WHERE 1 = 1
-- error:
a comparison needs a column on one side and a literal on the other at line 1, column 35

-- title: compared with NULL
SELECT COUNT(*) FROM visits WHERE age = NULL
-- error:
nothing compares with NULL; use IS NULL or IS NOT NULL at line 1, column 35

-- title: IS TRUE
SELECT COUNT(*) FROM visits WHERE smoker IS TRUE
-- error:
smoker IS TRUE is not supported in WHERE at line 1, column 35

-- title: LIKE
SELECT COUNT(*) FROM visits WHERE ward LIKE 's%'
-- error:
ward LIKE 's%' is not supported in WHERE at line 1, column 35

-- title: a cast
SELECT COUNT(*) FROM visits WHERE age::VARCHAR = '3'
-- error:
a comparison needs a column on one side and a literal on the other at line 1, column 35

-- title: a function in WHERE
SELECT COUNT(*) FROM visits WHERE abs(age) = 3
-- error:
a comparison needs a column on one side and a literal on the other at line 1, column 35

-- title: not a statement
hello
-- error:
the question does not begin with SELECT at line 1, column 1

-- title: a misspelt SELECT
SELEC COUNT(*) FROM visits
-- error:
broken SQL at line 1, column 12 near '('

-- title: an open parenthesis
SELECT COUNT(* FROM visits
-- error:
broken SQL at line 1, column 16 near 'FROM'

-- title: WHERE without an end
SELECT COUNT(*) FROM visits WHERE age >
-- error:
broken SQL at line 1, column 39 near '>'

-- title: an open quote
SELECT COUNT(*) FROM visits WHERE ward = 'surgery
-- error:
broken SQL: a quote or comment is not closed, or it is nested too deeply

-- title: an empty question

-- error:
the question is empty

-- title: a comment alone
/* nothing */
-- error:
the question is empty

-- title: two statements
SELECT COUNT(*) FROM visits; SELECT COUNT(*) FROM visits
-- error:
2 statements, ask one question at a time

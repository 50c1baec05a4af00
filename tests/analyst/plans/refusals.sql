-- title: SELECT *
SELECT * FROM visits
-- error:
SELECT * is not supported at line 1, column 8

-- title: SELECT * beside an aggregate
SELECT COUNT(*), * FROM visits
-- error:
SELECT * is not supported at line 1, column 18

-- title: SELECT table.*
SELECT visits.* FROM visits
-- error:
SELECT * is not supported at line 1, column 8

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
the question has no aggregate at line 1, column 8
-- hint:
rows never leave a silo; count those of each group: SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward

-- title: another function
SELECT MODE(age) FROM visits
-- error:
MODE(age) is not supported at line 1, column 8

-- title: an aggregate in an aggregate
SELECT SUM(age * COUNT(*)) FROM visits
-- error:
SUM takes one measure at line 1, column 8
-- hint:
compute with figures outside of aggregates, as in AVG(x) * COUNT(*)

-- title: an aggregate of a constant
SELECT SUM(2) FROM visits
-- error:
2 reads no column at line 1, column 12
-- hint:
count rows with COUNT(*), and multiply the figure

-- title: SUM(*)
SELECT SUM(*) FROM visits
-- error:
SUM takes one measure at line 1, column 8

-- title: two arguments
SELECT COUNT(age, stay) FROM visits
-- error:
COUNT takes one measure at line 1, column 8

-- title: COUNT(DISTINCT)
SELECT COUNT(DISTINCT age) FROM visits
-- error:
COUNT takes one measure at line 1, column 8

-- title: DISTINCT
SELECT DISTINCT ward FROM visits
-- error:
the question has no aggregate at line 1, column 17
-- hint:
rows never leave a silo; count those of each group: SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward

-- title: DISTINCT of a number
SELECT DISTINCT ward, age FROM visits WHERE smoker
-- error:
the question has no aggregate at line 1, column 17
-- hint:
rows never leave a silo; count those of each group: SELECT ward, age // 10 * 10 AS age_from, COUNT(*) AS n FROM visits WHERE smoker GROUP BY ward, age_from

-- title: SELECT * in an order
SELECT * FROM visits WHERE age > 60 ORDER BY age LIMIT 5
-- error:
SELECT * is not supported at line 1, column 8
-- hint:
rows never leave a silo; count those of each group: SELECT ward, COUNT(*) AS n FROM visits WHERE age > 60 GROUP BY ward

-- title: a list of numbers
SELECT age FROM visits
-- error:
column 'age' at line 1, column 8 is neither grouped by nor aggregated
-- hint:
rows never leave a silo; count those of each group: SELECT age // 10 * 10 AS age_from, COUNT(*) AS n FROM visits GROUP BY age_from

-- title: a list of texts that are no groups
SELECT region FROM visits
-- error:
column 'region' at line 1, column 8 is neither grouped by nor aggregated
-- hint:
rows never leave a silo; count them: SELECT COUNT(*) AS n FROM visits

-- title: an aggregate in WHERE
SELECT ward, COUNT(*) FROM visits WHERE age > 3 AND COUNT(*) > 3 GROUP BY ward
-- error:
WHERE has an aggregate at line 1, column 53: it reads single rows
-- hint:
a condition on a figure of groups stands after GROUP BY: HAVING COUNT(*) > 3

-- title: both ends
SELECT ward, MIN(age), MAX(age) FROM visits WHERE NOT smoker GROUP BY ward
-- error:
MIN(age) is not supported at line 1, column 18
-- hint:
one person decides it, so no interval is honest; ask the average, and count the rows below and above a value: SELECT ward, AVG(age), SUM(CASE WHEN age < 60 THEN 1 ELSE 0 END) AS n_below, SUM(CASE WHEN age > 60 THEN 1 ELSE 0 END) AS n_above FROM visits WHERE NOT smoker GROUP BY ward

-- title: the least of a dimension
SELECT MIN(ward) FROM visits
-- error:
MIN(ward) is not supported at line 1, column 12
-- hint:
one person decides it, so no interval is honest; count the rows of each value: SELECT ward, COUNT(*) FROM visits GROUP BY ward

-- title: the largest by bucket
SELECT age // 10 AS tens, MAX(cost) FROM visits GROUP BY tens
-- error:
MAX(cost) is not supported at line 1, column 31
-- hint:
one person decides it, so no interval is honest; ask the average, and count the rows above a value: SELECT age // 10 AS tens, AVG(cost), SUM(CASE WHEN cost > 2500 THEN 1 ELSE 0 END) AS n_above FROM visits GROUP BY tens

-- title: a median of a dimension
SELECT ward, MEDIAN(grade) FROM visits GROUP BY ward
-- error:
cannot aggregate 'grade' at line 1, column 21: no policy gives it bounds
-- hint:
count the rows of each value, and read off the middle: SELECT ward, grade, COUNT(*) AS n FROM visits GROUP BY ward, grade

-- title: a correlation with a dimension
SELECT CORR(age, grade) FROM visits
-- error:
cannot aggregate 'grade' at line 1, column 18: no policy gives it bounds
-- hint:
ask the average of the other column in each group: SELECT grade, AVG(age) FROM visits GROUP BY grade

-- title: an average of a dimension by group
SELECT ward, AVG(grade) FROM visits WHERE age > 50 GROUP BY ward
-- error:
cannot aggregate 'grade' at line 1, column 18: no policy gives it bounds
-- hint:
average its groups: SELECT ward, SUM(grade * n) / SUM(n) AS average FROM (SELECT ward, grade, COUNT(*) AS n FROM visits WHERE age > 50 AND grade IS NOT NULL GROUP BY ward, grade) GROUP BY ward

-- title: a deviation of a dimension
SELECT STDDEV(grade) FROM visits
-- error:
cannot aggregate 'grade' at line 1, column 15: no policy gives it bounds
-- hint:
compute it from its groups: SELECT SUM(grade * grade * n) / SUM(n) - (SUM(grade * n) / SUM(n)) ** 2 AS variance FROM (SELECT grade, COUNT(*) AS n FROM visits WHERE grade IS NOT NULL GROUP BY grade)

-- title: a window
SELECT COUNT(*) OVER () FROM visits
-- error:
the question has no aggregate at line 1, column 8

-- title: an alias twice
SELECT COUNT(*) AS n, SUM(age) AS n FROM visits
-- error:
the output name 'n' is used twice at line 1, column 35
-- hint:
give every column of the answer its own name with AS; an aggregate n also takes n_low, n_high, n_sd

-- title: a default name twice
SELECT COUNT(*), COUNT(*) FROM visits
-- error:
the output name 'count_star' is used twice

-- title: a dimension under the name of an interval's end
SELECT ward AS n_low, COUNT(*) AS n FROM visits GROUP BY ward
-- error:
the output name 'n_low' is used twice at line 1, column 16

-- title: an aggregate under the name of another's deviation
SELECT COUNT(*) AS n, SUM(age) AS n_sd FROM visits
-- error:
the output name 'n_sd' is used twice at line 1, column 35

-- title: a dimension twice under one name
SELECT ward, ward, COUNT(*) AS n FROM visits GROUP BY ward
-- error:
the output name 'ward' is used twice at line 1, column 14

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
'other' is no table to join at line 1, column 34

-- title: two tables
SELECT COUNT(*) FROM visits, visits
-- error:
JOIN of a table with itself is not supported at line 1, column 30

-- title: a subquery in FROM
SELECT COUNT(*) FROM (SELECT 1)
-- error:
FROM must name one table, without schema at line 1, column 8

-- title: a subquery in WHERE
SELECT COUNT(*) FROM visits
WHERE age IN (SELECT 1)
-- error:
a subquery is not supported at line 2, column 22

-- title: EXISTS
SELECT COUNT(*) FROM visits WHERE EXISTS (SELECT 1)
-- error:
a subquery is not supported at line 1, column 50

-- title: a schema
SELECT COUNT(*) FROM main.visits
-- error:
FROM must name one table, without schema at line 1, column 22

-- title: no table
SELECT COUNT(*)
-- error:
FROM must name one table, without schema at line 1, column 8

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
column 'age' compares with a number, found TRUE at line 1, column 35

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

-- title: two literals compared
SELECT COUNT(*) FROM visits WHERE 1 = 1
-- error:
a comparison needs a column on one side and a literal on the other at line 1, column 35

-- title: compared with NULL
SELECT COUNT(*) FROM visits WHERE age = NULL
-- error:
nothing compares with NULL; use IS NULL or IS NOT NULL at line 1, column 35

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
broken SQL: a quote or comment is not closed

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
2 statements, where one question is read

-- title: a correlation of a column with itself
SELECT CORR(age, age) FROM visits
-- error:
CORR names 'age' twice at line 1, column 8

-- title: a correlation with a third argument
SELECT CORR(age, cost, stay) FROM visits
-- error:
CORR takes two measures at line 1, column 8

-- title: a regression of one column
SELECT REGR_SLOPE(age) FROM visits
-- error:
REGR_SLOPE takes two measures at line 1, column 8

-- title: a covariance of a text
SELECT COVAR_POP(age, ward) FROM visits
-- error:
cannot aggregate 'ward' at line 1, column 23: it holds text

-- title: a variance of all
SELECT VARIANCE(*) FROM visits
-- error:
VAR_SAMP takes one measure at line 1, column 8

-- title: a variance of different values
SELECT STDDEV(DISTINCT age) FROM visits
-- error:
STDDEV_SAMP takes one measure at line 1, column 8

-- title: a variance of text
SELECT VAR_POP(region) FROM visits
-- error:
cannot aggregate 'region' at line 1, column 16: it holds text

-- title: a correlation with dates or text
SELECT CORR(age, ward) FROM visits
-- error:
cannot aggregate 'ward' at line 1, column 18: it holds text

-- title: no row of the answer
SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward LIMIT 0
-- error:
LIMIT 0 shows no row, and all are paid at line 1, column 60
-- hint:
leave it out, or give a limit above 0

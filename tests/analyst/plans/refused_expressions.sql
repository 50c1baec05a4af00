-- title: a bucket of width 0
SELECT age // 0 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
age // 0 divides by 0 at line 1, column 8
-- hint:
write a width above 0, such as x // 10

-- title: a bucket by a division by 0
SELECT FLOOR(age / 0.0) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
age / 0.0 divides by 0 at line 1, column 14
-- hint:
write a width above 0, such as x // 10

-- title: too many buckets
SELECT FLOOR(cost) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
FLOOR(cost) has more than 5,000 results at line 1, column 14
-- hint:
take wider buckets, such as FLOOR(x / 100), or conditions: CASE WHEN x < 5 THEN ... END

-- title: buckets of a column without bounds
SELECT SUBSTR(region, 1, 1) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
SUBSTRING(region, 1, 1) cannot be computed at line 1, column 8
-- hint:
an expression is computed over public values, and no policy gives 'region' a closed domain; compare it with whole texts: =, IN

-- title: far too many buckets
SELECT cost * 2 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
cost * 2 has more than 5,000 results at line 1, column 8
-- hint:
take wider buckets, such as FLOOR(x / 100), or conditions: CASE WHEN x < 5 THEN ... END

-- title: an expression of two columns
SELECT age + stay AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
age + stay is no expression of one column at line 1, column 8
-- hint:
an expression of one column is computed over its public values; compare two columns as they are: a < b

-- title: labels of two kinds
SELECT CASE WHEN age < 3 THEN 'x' ELSE 3 END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
the results of a CASE are int and string at line 1, column 18
-- hint:
let all of its results be text, or all numbers

-- title: a label that is no literal
SELECT CASE WHEN smoker THEN age ELSE 3 END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
age is no label at line 1, column 30
-- hint:
a result of CASE is a text in quotes, a number, TRUE, FALSE or NULL; group by the column beside it

-- title: an expression that is not grouped by
SELECT age // 5, COUNT(*) FROM visits GROUP BY age // 10
-- error:
column 'age' is neither grouped by nor aggregated at line 1, column 8
-- hint:
add it to GROUP BY, or take a figure of it, such as AVG; the answer has age // 5, count_star

-- title: a grouping that is no grouping
SELECT CASE WHEN age < 3 THEN 'x' ELSE 'x' END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
CASE WHEN age < 3 THEN 'x' ELSE 'x' END at line 1, column 18 is the same for every row
-- hint:
leave it out of GROUP BY

-- title: width_bucket of no width
SELECT WIDTH_BUCKET(age, 5, 5, 3) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
WIDTH_BUCKET(age, 5, 5, 3) has no buckets at line 1, column 8
-- hint:
write width_bucket(x, low, high, n) with low below high, and n of at least 1

-- title: another function of a column
SELECT MD5(ward) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
MD5(ward) is not supported at line 1, column 8
-- hint:
over public values: arithmetic, FLOOR, ROUND, ABS, SUBSTR, LEFT, RIGHT, UPPER, LOWER, LENGTH, ||, REPLACE, LIKE, ILIKE, IN, BETWEEN, CASE, COALESCE, NULLIF, CAST, and of dates year(), quarter(), month(), date_trunc()

-- title: a function that reads files
SELECT READ_TEXT(ward) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- error:
READ_TEXT(ward) is not supported at line 1, column 8
-- hint:
over public values: arithmetic, FLOOR, ROUND, ABS, SUBSTR, LEFT, RIGHT, UPPER, LOWER, LENGTH, ||, REPLACE, LIKE, ILIKE, IN, BETWEEN, CASE, COALESCE, NULLIF, CAST, and of dates year(), quarter(), month(), date_trunc()

-- title: GROUP BY an aggregate
SELECT COUNT(*) FROM visits GROUP BY COUNT(*)
-- error:
GROUP BY takes columns, and expressions of columns at line 1, column 38
-- hint:
supported: SELECT dimensions and COUNT(*), COUNT(col), SUM(col), AVG(col), COUNT(DISTINCT person), MEDIAN and QUANTILE_CONT, VAR_* and STDDEV_*(col), COVAR_*, CORR and REGR_*(col, col), HISTOGRAM, SURVIVAL, FROM one table or tables joined on the person WHERE comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT GROUP BY dimensions, CASE, buckets such as x // 10; and whatever is computed from their figures

-- title: LIKE without a domain
SELECT COUNT(*) FROM visits WHERE region LIKE 'a%'
-- error:
region LIKE 'a%' cannot be computed at line 1, column 35
-- hint:
an expression is computed over public values, and no policy gives 'region' a closed domain; compare it with whole texts: =, IN

-- title: two columns in a function
SELECT COUNT(*) FROM visits WHERE age + stay > 5
-- error:
age + stay > 5 is no expression of one column at line 1, column 35
-- hint:
an expression of one column is computed over its public values; compare two columns as they are: a < b

-- title: two columns of different types
SELECT COUNT(*) FROM visits WHERE age < ward
-- error:
'age' and 'ward' do not compare: one is int, the other string at line 1, column 35
-- hint:
compare each with a literal, or columns of one type

-- title: BETWEEN SYMMETRIC
SELECT COUNT(*) FROM visits WHERE age BETWEEN SYMMETRIC 60 AND 40
-- error:
BETWEEN SYMMETRIC is not supported: write the lower end first at line 1, column 35
-- hint:
supported: SELECT dimensions and COUNT(*), COUNT(col), SUM(col), AVG(col), COUNT(DISTINCT person), MEDIAN and QUANTILE_CONT, VAR_* and STDDEV_*(col), COVAR_*, CORR and REGR_*(col, col), HISTOGRAM, SURVIVAL, FROM one table or tables joined on the person WHERE comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT GROUP BY dimensions, CASE, buckets such as x // 10; and whatever is computed from their figures

-- title: a core as it is
SELECT ward, COUNT(*) AS n FROM visits WHERE age > 60 GROUP BY ward
-- core:
SELECT ward, COUNT(*) AS n FROM visits WHERE age > 60 GROUP BY ward

-- title: ORDER BY and LIMIT
SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY n DESC LIMIT 2
-- core:
SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward
-- after:
SELECT ward, f1 AS n FROM released ORDER BY n DESC LIMIT 2

-- title: HAVING
SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING COUNT(*) > 40
-- core:
SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward
-- after:
SELECT ward, f1 AS n FROM released WHERE f1 > 40

-- title: an aggregate twice is asked once
SELECT SUM(age) / COUNT(*) AS mean, sum( age ) AS s FROM visits
-- core:
SELECT SUM(age) AS f1, COUNT(*) AS f2 FROM visits
-- after:
SELECT f1 / f2 AS mean, f1 AS s FROM released

-- title: windows over groups
SELECT ward, SUM(COUNT(*)) OVER (ORDER BY ward) AS running, RANK() OVER (ORDER BY AVG(age)) AS r FROM visits GROUP BY 1
-- core:
SELECT ward, COUNT(*) AS f1, AVG(age) AS f2 FROM visits GROUP BY ward
-- after:
SELECT ward, SUM(f1) OVER (ORDER BY ward) AS running, RANK() OVER (ORDER BY f2) AS r FROM released

-- title: a subquery that only filters
SELECT AVG(age) AS a FROM (SELECT * FROM visits WHERE smoker AND age >= 2) AS v WHERE v.ward = 'a'
-- core:
SELECT AVG(age) AS a FROM visits WHERE (smoker AND age >= 2) AND ward = 'a'

-- title: CTEs that only filter, one after the other
WITH a AS (SELECT * FROM visits WHERE smoker), b AS (SELECT age AS years, ward FROM a) SELECT ward, AVG(years) AS y FROM b GROUP BY ward
-- core:
SELECT ward, AVG(age) AS y FROM visits WHERE smoker GROUP BY ward

-- title: a share of the total by a CTE
WITH t AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) SELECT ward, n / (SELECT SUM(n) FROM t) AS share FROM t
-- core:
SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward
-- after:
WITH t AS (SELECT ward, f1 AS n FROM released) SELECT ward, n / (SELECT SUM(n) FROM t) AS share FROM t

-- title: what surrounds a grouped question reads its figures itself
SELECT * FROM (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) WHERE n > 50 ORDER BY n
-- core:
SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward
-- after:
SELECT "ward", f1 AS "n" FROM released WHERE f1 > 50 ORDER BY f1

-- title: GROUP BY ALL, and aliases of table and columns
SELECT v.ward AS w, COUNT(*) FROM visits AS v GROUP BY ALL
-- core:
SELECT ward AS w, COUNT(*) FROM visits GROUP BY ward

-- title: an expression is grouped by under a name
SELECT SUBSTRING(ward, 1, 1) AS first, COUNT(*) + 1 AS n FROM visits GROUP BY first
-- core:
SELECT SUBSTRING(ward, 1, 1) AS first, COUNT(*) AS f1 FROM visits GROUP BY SUBSTRING(ward, 1, 1)
-- after:
SELECT first AS first, f1 + 1 AS n FROM released

-- title: an expression that has the name of its column
SELECT UPPER(ward) AS ward, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY n
-- core:
SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward
-- after:
SELECT UPPER(ward) AS ward, f1 AS n FROM released ORDER BY n

-- title: an aggregate of released figures
SELECT AVG(n) AS a, MAX(n) AS m FROM (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward)
-- core:
SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward
-- after:
SELECT AVG(n) AS a, MAX(n) AS m FROM (SELECT ward, f1 AS n FROM released)

-- title: UNION ALL over one grouped question
WITH t AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) SELECT ward, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t
-- core:
SELECT ward, COUNT(*) AS f1 FROM visits GROUP BY ward
-- after:
WITH t AS (SELECT ward, f1 AS n FROM released) SELECT ward, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t

-- title: columns without a name
SELECT ward, ROUND(AVG(age), 1), COUNT(*) FROM visits GROUP BY ward ORDER BY 2
-- core:
SELECT ward, AVG(age) AS f1, COUNT(*) AS f2 FROM visits GROUP BY ward
-- after:
SELECT ward, ROUND(f1, 1) AS "ROUND(AVG(age), 1)", f2 AS "count_star" FROM released ORDER BY 2

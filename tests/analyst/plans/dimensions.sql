-- title: one dimension
SELECT ward, COUNT(*) FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: an int dimension
SELECT grade, AVG(age) FROM visits GROUP BY grade
-- plan:
{"kind":"query","where":null,"group_by":["grade"],"aggregates":[{"function":"avg","column":"age","alias":"avg_age"}]}

-- title: two dimensions, in the order of GROUP BY
SELECT ward, grade, COUNT(*) FROM visits GROUP BY grade, ward
-- plan:
{"kind":"query","where":null,"group_by":["grade","ward"],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a dimension after the aggregate
SELECT COUNT(*), ward FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a dimension that is not selected
SELECT COUNT(*) FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"f1"}]}

-- title: a dimension by its alias
SELECT ward AS place, COUNT(*) FROM visits GROUP BY place
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a qualified, quoted dimension
SELECT visits."ward", COUNT(*) FROM visits GROUP BY visits."ward"
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: dimension and filter on the same column
SELECT ward, COUNT(*) FROM visits WHERE ward <> 'unknown' GROUP BY ward
-- plan:
{"kind":"query","where":{"kind":"compare","column":"ward","op":"<>","value":"unknown"},"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a table in capitals
SELECT COUNT(*) FROM VISITS
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a column in capitals, an alias in small letters
SELECT WARD AS "W", COUNT(*) AS N FROM Visits AS V WHERE v.Age >= 30 GROUP BY w
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">=","value":"30"},"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"N"}]}

-- title: totals of one column
SELECT ward, COUNT(*) AS n, AVG(cost) FROM visits GROUP BY ROLLUP (ward)
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"f1"},{"function":"sum","column":"cost","alias":"f2"},{"function":"count","column":"cost","alias":"f3"}]}

-- title: totals of two columns, by an alias
SELECT ward AS w, grade, SUM(cost) / COUNT(*) AS r FROM visits WHERE age > 30 GROUP BY CUBE (w, grade) HAVING COUNT(*) > 20
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"30"},"group_by":["ward","grade"],"aggregates":[{"function":"sum","column":"cost","alias":"f1"},{"function":"count","column":null,"alias":"f2"}]}

-- title: totals as another dialect has them
SELECT ward, COUNT(*) FROM visits GROUP BY ward WITH ROLLUP
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"f1"}]}

-- title: a median has no total
SELECT ward, MEDIAN(age) FROM visits GROUP BY ROLLUP (ward)
-- error:
MEDIAN(age) has no total at line 1, column 14
-- hint:
totals add up counts, sums and averages: ask this figure of all rows in a statement of its own

-- title: totals of an expression
SELECT CASE WHEN age < 50 THEN 'y' ELSE 'o' END AS band, ward, COUNT_IF(smoker) AS s FROM visits GROUP BY GROUPING SETS ((band, ward), (band), ())
-- plan:
{"kind":"query","where":null,"group_by":["key1","ward"],"aggregates":[{"function":"count","column":"measure_1","alias":"f1"}],"cases":[{"name":"key1","whens":[{"kind":"compare","column":"age","op":"<","value":"50"}],"labels":["y"],"otherwise":"o"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"constant","value":"1"}],"otherwise":null}}]}

-- title: which row is a total
SELECT ward, GROUPING(ward), COUNT(*) FROM visits GROUP BY ROLLUP (ward)
-- error:
GROUPING is not supported at line 1, column 14
-- hint:
leave it out: a row of a total is NULL in the columns of which it is one

-- title: COUNT(*) with its default name
SELECT COUNT(*) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: COUNT of a column
SELECT COUNT(age) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":"age","alias":"count_age"}]}

-- title: SUM with its default name
SELECT SUM(cost) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"sum","column":"cost","alias":"sum_cost"}]}

-- title: AVG with an alias
SELECT AVG(age) AS mean_age FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"age","alias":"mean_age"}]}

-- title: an alias without AS
SELECT COUNT(*) n FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"n"}]}

-- title: several aggregates of one column
SELECT COUNT(*) AS n, SUM(stay), AVG(stay), COUNT(stay) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"n"},{"function":"sum","column":"stay","alias":"sum_stay"},{"function":"avg","column":"stay","alias":"avg_stay"},{"function":"count","column":"stay","alias":"count_stay"}]}

-- title: a bool is a measure
SELECT SUM(smoker) AS smokers, AVG(smoker) AS share FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"sum","column":"smoker","alias":"smokers"},{"function":"avg","column":"smoker","alias":"share"}]}

-- title: keywords and functions in any case
select count(*), Avg(age) from visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"},{"function":"avg","column":"age","alias":"avg_age"}]}

-- title: a qualified column
SELECT AVG(visits.age) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"age","alias":"avg_age"}]}

-- title: quoted identifiers
SELECT AVG("age") AS "mean of age" FROM "visits"
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"avg","column":"age","alias":"mean of age"}]}

-- title: comments of both kinds
SELECT COUNT(*) -- how many
FROM visits /* all of them */
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

-- title: a final semicolon
SELECT COUNT(*) FROM visits;
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"count","column":null,"alias":"count_star"}]}

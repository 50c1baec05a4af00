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

-- title: variances, and the names that DuckDB has for them
SELECT VAR_POP(age), VAR_SAMP(cost), VARIANCE(stay) AS v FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"var_pop","column":"age","alias":"var_pop_age"},{"function":"var_samp","column":"cost","alias":"var_samp_cost"},{"function":"var_samp","column":"stay","alias":"v"}]}

-- title: standard deviations
SELECT STDDEV_POP(age), STDDEV_SAMP(cost), STDDEV(stay) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"stddev_pop","column":"age","alias":"stddev_pop_age"},{"function":"stddev_samp","column":"cost","alias":"stddev_samp_cost"},{"function":"stddev_samp","column":"stay","alias":"stddev_samp_stay"}]}

-- title: covariances and a correlation
SELECT COVAR_POP(cost, age), COVAR_SAMP(cost, age), CORR(age, cost) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"covar_pop","column":"cost","alias":"covar_pop_cost_age","other":"age"},{"function":"covar_samp","column":"cost","alias":"covar_samp_cost_age","other":"age"},{"function":"corr","column":"age","alias":"corr_age_cost","other":"cost"}]}

-- title: a regression of the first column by the second
SELECT regr_slope(cost, age) AS b, REGR_INTERCEPT(cost, age) AS a, REGR_R2(cost, age), REGR_COUNT(cost, age), REGR_AVGX(cost, age), REGR_AVGY(cost, age) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"regr_slope","column":"cost","alias":"b","other":"age"},{"function":"regr_intercept","column":"cost","alias":"a","other":"age"},{"function":"regr_r2","column":"cost","alias":"regr_r2_cost_age","other":"age"},{"function":"regr_count","column":"cost","alias":"regr_count_cost_age","other":"age"},{"function":"regr_avgx","column":"cost","alias":"regr_avgx_cost_age","other":"age"},{"function":"regr_avgy","column":"cost","alias":"regr_avgy_cost_age","other":"age"}]}

-- title: a covariance of a qualified bool
SELECT COVAR_POP(visits.smoker, stay) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"covar_pop","column":"smoker","alias":"covar_pop_smoker_stay","other":"stay"}]}

-- title: SUM(1) counts rows
SELECT ward, SUM(1) AS n FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"n"}]}

-- title: a median
SELECT MEDIAN(age) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"quantile","column":"age","alias":"median_age","at":"0.5"}]}

-- title: quantiles of one column, by group
SELECT ward, QUANTILE_CONT(age, 0.25), APPROX_QUANTILE(age, 0.950) AS late FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"quantile","column":"age","alias":"quantile_age_0.25","at":"0.25"},{"function":"quantile","column":"age","alias":"late","at":"0.95"}]}

-- title: quantiles that are those of a row
SELECT QUANTILE_DISC(age, 0.5), QUANTILE(cost, 0.1) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"quantile_disc","column":"age","alias":"quantile_disc_age_0.5","at":"0.5"},{"function":"quantile_disc","column":"cost","alias":"quantile_disc_cost_0.1","at":"0.1"}]}

-- title: quantiles in the order of a column
SELECT PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY age) AS a, PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY age) AS b, PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY age DESC) AS c FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"quantile","column":"age","alias":"a","at":"0.9"},{"function":"quantile_disc","column":"age","alias":"b","at":"0.9"},{"function":"quantile","column":"age","alias":"c","at":"0.1"}]}

-- title: a median of what a person comes to
SELECT MEDIAN(days) AS m FROM (SELECT patient_id, LEAST(SUM(stay), 90) AS days FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"quantile","column":"days","alias":"m","at":"0.5"}],"inner":{"where":null,"columns":[{"name":"days","function":"sum","column":"stay","low":0,"high":90}]}}

-- title: a median beside other figures and a condition
SELECT grade, COUNT(*) AS n, MEDIAN(cost) AS m FROM visits WHERE smoker GROUP BY grade
-- plan:
{"kind":"query","where":{"kind":"compare","column":"smoker","op":"=","value":"true"},"group_by":["grade"],"aggregates":[{"function":"count","column":null,"alias":"n"},{"function":"quantile","column":"cost","alias":"m","at":"0.5"}]}

-- title: a histogram by buckets
SELECT ward, HISTOGRAM(age, 50) AS n FROM visits GROUP BY ward
-- plan:
{"kind":"query","where":null,"group_by":["ward","age_from"],"aggregates":[{"function":"count","column":null,"alias":"f1"}],"cases":[{"name":"age_from","whens":[{"kind":"compare","column":"age","op":"<","value":"50"},{"kind":"compare","column":"age","op":"<","value":"100"},{"kind":"compare","column":"age","op":">=","value":"100"}],"labels":["0","50","100"],"otherwise":null,"type":"int"}]}

-- title: a histogram by listed ends
SELECT HISTOGRAM(age, [18, 65]) AS n FROM visits
-- plan:
{"kind":"query","where":null,"group_by":["age_bucket"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"age_bucket","whens":[{"kind":"compare","column":"age","op":"<=","value":"18"},{"kind":"compare","column":"age","op":"<=","value":"65"},{"kind":"compare","column":"age","op":">","value":"65"}],"labels":["up to 18","over 18 up to 65","over 65"],"otherwise":null}]}

-- title: a histogram of a dimension
SELECT HISTOGRAM(ward) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":["ward"],"aggregates":[{"function":"count","column":null,"alias":"histogram"}]}

-- title: a histogram of what a person comes to
SELECT HISTOGRAM(n, 2) AS persons FROM (SELECT patient_id, LEAST(COUNT(*), 4) AS n FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":["n_from"],"aggregates":[{"function":"count","column":null,"alias":"f1"}],"cases":[{"name":"n_from","whens":[{"kind":"compare","column":"n","op":"<","value":"2"}],"labels":["0"],"otherwise":"2","type":"int"}],"inner":{"where":null,"columns":[{"name":"n","function":"count","column":null,"high":4}]}}

-- title: a share above 1
SELECT QUANTILE_CONT(age, 2) FROM visits
-- error:
a quantile is at a number between 0 and 1, found 2 at line 1, column 22
-- hint:
write a percentage as a share: QUANTILE_CONT(age, 0.02)

-- title: a negative share
SELECT QUANTILE_CONT(age, -1) FROM visits
-- error:
a quantile is at a number between 0 and 1, found -1 at line 1, column 22
-- hint:
a share of the rows, as in QUANTILE_CONT(age, 0.25)

-- title: a share of NULL
SELECT QUANTILE_CONT(age, NULL) FROM visits
-- error:
a quantile is at a number between 0 and 1, found NULL at line 1, column 22
-- hint:
write QUANTILE_CONT(age, 0.5)

-- title: no share
SELECT QUANTILE_CONT(age) FROM visits
-- error:
a quantile is at a number between 0 and 1, found nothing at line 1, column 22
-- hint:
write QUANTILE_CONT(age, 0.5)

-- title: a list of shares
SELECT QUANTILE_CONT(age, [0.25, 0.5]) FROM visits
-- error:
a quantile is at one share of the rows, not at a list of them at line 1, column 22
-- hint:
ask each: QUANTILE_CONT(age, 0.25), QUANTILE_CONT(age, 0.5)

-- title: the least value
SELECT QUANTILE_CONT(age, 0) FROM visits
-- error:
the quantile at 0 is MIN: one person decides it at line 1, column 22
-- hint:
ask QUANTILE_CONT(age, 0.01)

-- title: the largest value
SELECT QUANTILE_DISC(age, 1) FROM visits
-- error:
the quantile at 1 is MAX: one person decides it at line 1, column 22
-- hint:
ask QUANTILE_CONT(age, 0.99)

-- title: a share with many decimals
SELECT QUANTILE_CONT(age, 0.3333333) FROM visits
-- error:
a quantile has up to 6 decimals at line 1, column 22
-- hint:
write QUANTILE_CONT(age, 0.333333)

-- title: a share that is a column
SELECT QUANTILE_CONT(age, stay) FROM visits
-- error:
a quantile is at a number between 0 and 1, found stay at line 1, column 22
-- hint:
write QUANTILE_CONT(age, 0.5)

-- title: a median of different values
SELECT MEDIAN(DISTINCT age) FROM visits
-- error:
MEDIAN(DISTINCT age) is not supported at line 1, column 8
-- hint:
ask it of all rows: QUANTILE_CONT(age, 0.5)

-- title: a median of a bool
SELECT MEDIAN(smoker) FROM visits
-- error:
'smoker' is true or false, and has no quantile at line 1, column 8
-- hint:
ask AVG(smoker)

-- title: a median of a text
SELECT MEDIAN(ward) FROM visits
-- error:
cannot aggregate 'ward' at line 1, column 15: it holds text
-- hint:
count the rows of each value, and read off the middle: SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward

-- title: a row's quantile from above
SELECT PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY age DESC) FROM visits
-- error:
a quantile ORDER BY ... DESC is not supported at line 1, column 8
-- hint:
order by the column as it is, and ask for 1 - q

-- title: a bucket of width 0
SELECT HISTOGRAM(age, 0) FROM visits
-- error:
a bucket is a number above 0 wide, found 0 at line 1, column 23
-- hint:
write HISTOGRAM(age, 10), or a list of where buckets end

-- title: buckets without end
SELECT HISTOGRAM(age, 0.001) FROM visits
-- error:
110,001 buckets, at most 200 are made at line 1, column 23
-- hint:
write HISTOGRAM(age, 10)

-- title: falling ends of buckets
SELECT HISTOGRAM(age, [3, 1]) FROM visits
-- error:
the ends of buckets are no list of numbers at line 1, column 24
-- hint:
write numbers in rising order, at most 199, as in HISTOGRAM(age, [10, 20, 50])

-- title: a histogram beside a figure
SELECT HISTOGRAM(age), AVG(age) FROM visits
-- error:
HISTOGRAM(age) is not supported here: its buckets are rows of the answer at line 1, column 8
-- hint:
ask for it in a question of its own, beside the columns of GROUP BY

-- title: two histograms
SELECT HISTOGRAM(age), HISTOGRAM(cost) FROM visits
-- error:
HISTOGRAM(age) is not supported here: its buckets are rows of the answer at line 1, column 8
-- hint:
ask for it in a question of its own, beside the columns of GROUP BY

-- title: arithmetic with a histogram
SELECT HISTOGRAM(age) + 1 FROM visits
-- error:
HISTOGRAM(age) is not supported here: its buckets are rows of the answer at line 1, column 8
-- hint:
ask for it in a question of its own, beside the columns of GROUP BY

-- title: a histogram of an expression
SELECT HISTOGRAM(age * 2) FROM visits
-- error:
HISTOGRAM takes a column, and perhaps the width of a bucket at line 1, column 8
-- hint:
ask SELECT HISTOGRAM(age) FROM visits

-- title: a histogram of a text
SELECT HISTOGRAM(region) FROM visits
-- error:
'region' has no buckets at line 1, column 18: no policy gives it bounds or a closed domain
-- hint:
COUNT(*) counts rows

-- title: a histogram of a bool with a width
SELECT HISTOGRAM(smoker, 1) FROM visits
-- error:
'smoker' has values of its own as buckets at line 1, column 26
-- hint:
leave the second argument out: each value is a bucket

-- title: a histogram of nothing
SELECT HISTOGRAM() FROM visits
-- error:
HISTOGRAM takes a column, and perhaps the width of a bucket at line 1, column 8
-- hint:
ask SELECT HISTOGRAM(age) FROM visits

-- title: a median of an expression
SELECT MEDIAN(age * 2) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"quantile","column":"measure_1","alias":"median_age * 2","at":"0.5"}],"derived":[{"name":"measure_1","expression":{"kind":"apply","function":"multiply","arguments":[{"kind":"cell","column":"age"},{"kind":"constant","value":"2"}]}}]}

-- title: a median under a condition
SELECT MEDIAN(CASE WHEN smoker THEN age END) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"quantile","column":"measure_1","alias":"f1","at":"0.5"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"cell","column":"age"}],"otherwise":null}}]}

-- title: a median with a filter
SELECT MEDIAN(age) FILTER (WHERE smoker) AS m FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"quantile","column":"measure_1","alias":"f1","at":"0.5"}],"derived":[{"name":"measure_1","expression":{"kind":"choose","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"}],"results":[{"kind":"cell","column":"age"}],"otherwise":null}}]}

-- title: a median of a total
SELECT MEDIAN(SUM(age)) FROM visits
-- error:
MEDIAN(SUM(age)) is not supported at line 1, column 8
-- hint:
a quantile is of a column, or of an expression of columns

-- title: a median of nothing
SELECT MEDIAN(5) FROM visits
-- error:
MEDIAN(5) is not supported at line 1, column 8
-- hint:
a quantile is of a column, or of an expression of columns

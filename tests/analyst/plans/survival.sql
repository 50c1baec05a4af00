-- title: a survival curve with its default name
SELECT SURVIVAL(age, smoker) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"survival","column":"age","alias":"survival","other":"smoker"}]}

-- title: survival curves by group, of some rows, on a grid
SELECT ward AS w, Survival(v.age, v.smoker, 10) AS curve FROM visits v WHERE grade = 1 GROUP BY 1
-- plan:
{"kind":"query","where":{"kind":"compare","column":"grade","op":"=","value":"1"},"group_by":["ward"],"aggregates":[{"function":"survival","column":"age","alias":"curve","other":"smoker","width":10}]}

-- title: a survival curve of decimals, whose width is in units of the time
SELECT SURVIVAL(cost, smoker, 2.5) FROM visits
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"survival","column":"cost","alias":"survival","other":"smoker","width":250}]}

-- title: a survival curve of what a CTE filters
WITH old AS (SELECT * FROM visits WHERE age > 60) SELECT SURVIVAL(stay, smoker) FROM old
-- plan:
{"kind":"query","where":{"kind":"compare","column":"age","op":">","value":"60"},"group_by":[],"aggregates":[{"function":"survival","column":"stay","alias":"survival","other":"smoker"}]}

-- title: a survival curve of persons
SELECT SURVIVAL(a, s) FROM (SELECT patient_id, MAX(age) AS a, BOOL_OR(smoker) AS s FROM visits GROUP BY patient_id)
-- plan:
{"kind":"query","where":null,"group_by":[],"aggregates":[{"function":"survival","column":"a","alias":"survival","other":"s"}],"inner":{"where":null,"columns":[{"name":"a","function":"max","column":"age"},{"name":"s","function":"max","column":"smoker"}]}}

-- title: SURVIVAL of one column
SELECT SURVIVAL(age) FROM visits
-- error:
SURVIVAL takes a time, an event and a width at line 1, column 8
-- hint:
write SURVIVAL(time, event), or SURVIVAL(time, event, 30) for bins of 30: of a number, and of a bool

-- title: SURVIVAL of an expression
SELECT SURVIVAL(age + 1, smoker) FROM visits
-- error:
SURVIVAL takes plain columns at line 1, column 17
-- hint:
write SURVIVAL(time, event), or SURVIVAL(time, event, 30) for bins of 30: of a number, and of a bool

-- title: SURVIVAL without an event
SELECT SURVIVAL(age, stay) FROM visits
-- error:
'stay' is no bool at line 1, column 17
-- hint:
the second column says whether the event was seen: smoker

-- title: SURVIVAL of a bool as time
SELECT SURVIVAL(smoker, smoker) FROM visits
-- error:
'smoker' is no time: a number with bounds, and without a domain at line 1, column 17
-- hint:
write SURVIVAL(time, event), or SURVIVAL(time, event, 30) for bins of 30: of a number, and of a bool

-- title: SURVIVAL on bins that are no whole steps
SELECT SURVIVAL(age, smoker, 0.5) FROM visits
-- error:
bins of 0.5 are not whole steps of 'age', each 1 at line 1, column 17
-- hint:
leave the width out, or write 5: at most 2,048 bins are computed

-- title: SURVIVAL on bins of width 0
SELECT SURVIVAL(age, smoker, 0) FROM visits
-- error:
bins of 0 are not whole steps of 'age', each 1 at line 1, column 17

-- title: SURVIVAL on bins of a column's width
SELECT SURVIVAL(age, smoker, stay) FROM visits
-- error:
the width of a curve's bins is a number at line 1, column 17

-- title: SURVIVAL on too many bins
SELECT SURVIVAL(cost, smoker, 0.01) FROM visits
-- error:
a curve of 505,001 bins, at most 2,048 are computed at line 1, column 17
-- hint:
leave the width out, or write 200: at most 2,048 bins are computed

-- title: SURVIVAL beside a count
SELECT ward, COUNT(*), SURVIVAL(age, smoker) FROM visits GROUP BY ward
-- error:
SURVIVAL stands beside dimensions alone at line 1, column 33: its answer has a row for each time
-- hint:
ask SELECT ward, SURVIVAL(age, smoker) FROM visits GROUP BY ward, and the other figures in a second question

-- title: an order of survival curves
SELECT ward, SURVIVAL(age, smoker) FROM visits GROUP BY ward ORDER BY ward
-- error:
nothing is computed from SURVIVAL after the answer at line 1, column 23
-- hint:
ask SELECT ward, SURVIVAL(age, smoker) FROM visits GROUP BY ward; its rows are in order, and --format csv or Python compute with them

-- title: arithmetic with SURVIVAL
SELECT 1 - SURVIVAL(age, smoker) FROM visits WHERE grade = 1
-- error:
nothing is computed from SURVIVAL after the answer at line 1, column 21
-- hint:
ask SELECT SURVIVAL(age, smoker) FROM visits WHERE grade = 1; its rows are in order, and --format csv or Python compute with them

-- title: SURVIVAL of rows that meet a condition
SELECT SURVIVAL(age, smoker) FILTER (WHERE grade = 1) FROM visits WHERE age > 3
-- error:
nothing is computed from SURVIVAL after the answer at line 1, column 17
-- hint:
ask SELECT SURVIVAL(age, smoker) FROM visits WHERE age > 3 AND grade = 1; its rows are in order, and --format csv or Python compute with them

-- title: a dimension with the name of a column of curves
SELECT ward AS until, SURVIVAL(age, smoker) FROM visits GROUP BY ward
-- error:
the output name 'until' is used twice at line 1, column 16

-- title: CASE of a bounded column
SELECT CASE WHEN age < 18 THEN 'child' WHEN age < 65 THEN 'adult' ELSE 'senior' END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"18"},{"kind":"compare","column":"age","op":"<","value":"65"}],"labels":["child","adult"],"otherwise":"senior"}]}

-- title: CASE without ELSE
SELECT CASE WHEN age < 18 THEN 'child' END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"18"}],"labels":["child"],"otherwise":null}]}

-- title: CASE with ELSE NULL and two labels alike
SELECT CASE WHEN age < 18 THEN 'few' WHEN age > 64 THEN 'few' WHEN smoker THEN NULL ELSE 'many' END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"18"},{"kind":"compare","column":"age","op":">","value":"64"},{"kind":"compare","column":"smoker","op":"=","value":"true"}],"labels":["few","few",null],"otherwise":"many"}]}

-- title: CASE with numbers
SELECT CASE WHEN smoker THEN 1 WHEN cost > 10.5 THEN 2.5 ELSE -3 END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"},{"kind":"compare","column":"cost","op":">","value":"10.5"}],"labels":["1","2.5"],"otherwise":"-3","type":"decimal"}]}

-- title: CASE inside CASE
SELECT CASE WHEN age < 18 THEN CASE WHEN smoker THEN 'a' ELSE 'b' END ELSE 'c' END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"and","operands":[{"kind":"compare","column":"age","op":"<","value":"18"},{"kind":"compare","column":"smoker","op":"=","value":"true"}]},{"kind":"compare","column":"age","op":"<","value":"18"}],"labels":["a","b"],"otherwise":"c"}]}

-- title: CASE of a member of a domain
SELECT CASE ward WHEN 'surgery' THEN 'cut' ELSE 'not cut' END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"compare","column":"ward","op":"=","value":"surgery"}],"labels":["not cut","cut"],"otherwise":"not cut"}]}

-- title: CASE of two columns compared
SELECT CASE WHEN age < cost THEN TRUE ELSE FALSE END AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare_columns","column":"age","op":"<","other":"cost"}],"labels":["true"],"otherwise":"false","type":"bool"}]}

-- title: a bucket of whole numbers
SELECT age // 20 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"20"},{"kind":"compare","column":"age","op":"<","value":"40"},{"kind":"compare","column":"age","op":"<","value":"60"},{"kind":"compare","column":"age","op":"<","value":"80"},{"kind":"compare","column":"age","op":"<","value":"100"},{"kind":"not","operand":{"kind":"is_null","column":"age"}}],"labels":["0","1","2","3","4","5"],"otherwise":null,"type":"int"}]}

-- title: a bucket by FLOOR, named by its lower end
SELECT FLOOR(age / 25) * 25 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"25"},{"kind":"compare","column":"age","op":"<","value":"50"},{"kind":"compare","column":"age","op":"<","value":"75"},{"kind":"compare","column":"age","op":"<","value":"100"},{"kind":"not","operand":{"kind":"is_null","column":"age"}}],"labels":["0","25","50","75","100"],"otherwise":null,"type":"int"}]}

-- title: a bucket of decimals
SELECT FLOOR(cost / 1000) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"cost","op":"<","value":"0"},{"kind":"compare","column":"cost","op":"<","value":"1000"},{"kind":"compare","column":"cost","op":"<","value":"2000"},{"kind":"compare","column":"cost","op":"<","value":"3000"},{"kind":"compare","column":"cost","op":"<","value":"4000"},{"kind":"compare","column":"cost","op":"<","value":"5000"},{"kind":"not","operand":{"kind":"is_null","column":"cost"}}],"labels":["-1","0","1","2","3","4","5"],"otherwise":null,"type":"int"}]}

-- title: a bucket of decimals by CEIL ends at its upper end
SELECT CEIL(cost / 2000) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"cost","op":"<=","value":"0"},{"kind":"compare","column":"cost","op":"<=","value":"2000"},{"kind":"compare","column":"cost","op":"<=","value":"4000"},{"kind":"not","operand":{"kind":"is_null","column":"cost"}}],"labels":["0","1","2","3"],"otherwise":null,"type":"int"}]}

-- title: a bucket of decimals by ROUND
SELECT ROUND(cost / 2500) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"cost","op":"<","value":"1250"},{"kind":"compare","column":"cost","op":"<","value":"3750"},{"kind":"not","operand":{"kind":"is_null","column":"cost"}}],"labels":["0","1","2"],"otherwise":null,"type":"int"}]}

-- title: width_bucket
SELECT WIDTH_BUCKET(age, 0, 100, 4) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"25"},{"kind":"compare","column":"age","op":"<","value":"50"},{"kind":"compare","column":"age","op":"<","value":"75"},{"kind":"compare","column":"age","op":"<","value":"100"},{"kind":"not","operand":{"kind":"is_null","column":"age"}}],"labels":["1","2","3","4","5"],"otherwise":null,"type":"int"}]}

-- title: a bucket with a missing one's own group
SELECT COALESCE(age // 50, -1) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"50"},{"kind":"compare","column":"age","op":"<","value":"100"},{"kind":"not","operand":{"kind":"is_null","column":"age"}}],"labels":["0","1","2"],"otherwise":"-1","type":"int"}]}

-- title: a condition
SELECT age >= 65 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":">=","value":"65"},{"kind":"not","operand":{"kind":"compare","column":"age","op":">=","value":"65"}}],"labels":["true","false"],"otherwise":null,"type":"bool"}]}

-- title: a bool without a domain
SELECT smoker AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"smoker","op":"=","value":"true"},{"kind":"not","operand":{"kind":"compare","column":"smoker","op":"=","value":"true"}}],"labels":["true","false"],"otherwise":null,"type":"bool"}]}

-- title: the remainder
SELECT age % 60 // 30 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"age","op":"<","value":"30"},{"kind":"compare","column":"age","op":"<","value":"60"},{"kind":"compare","column":"age","op":"<","value":"90"},{"kind":"not","operand":{"kind":"is_null","column":"age"}}],"labels":["0","1","0","1"],"otherwise":null,"type":"int"}]}

-- title: SUBSTR of a domain
SELECT SUBSTR(ward, 1, 3) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"compare","column":"ward","op":"=","value":"surgery"}],"labels":["med","sur"],"otherwise":null}]}

-- title: LEFT, RIGHT, UPPER, LOWER and ||
SELECT UPPER(LEFT(ward, 1)) || LOWER(RIGHT(ward, 2)) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"compare","column":"ward","op":"=","value":"surgery"}],"labels":["Mne","Sry"],"otherwise":null}]}

-- title: LENGTH of a domain
SELECT LENGTH(ward) AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"compare","column":"ward","op":"=","value":"surgery"}],"labels":["8","7"],"otherwise":null,"type":"int"}]}

-- title: LIKE of a domain
SELECT ward LIKE 's%' AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"compare","column":"ward","op":"=","value":"surgery"}],"labels":["false","true"],"otherwise":null,"type":"bool"}]}

-- title: IN of a domain
SELECT ward IN ('surgery', 'medicine') AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"one_of","column":"ward","values":["medicine","surgery"]}],"labels":["true"],"otherwise":null,"type":"bool"}]}

-- title: a member that is missing
SELECT ward = 'unknown' AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"one_of","column":"ward","values":["medicine","surgery"]}],"labels":["false"],"otherwise":"true","type":"bool"}]}

-- title: COALESCE of a domain
SELECT COALESCE(ward, 'none') AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"ward","op":"=","value":"medicine"},{"kind":"compare","column":"ward","op":"=","value":"surgery"}],"labels":["medicine","surgery"],"otherwise":"none"}]}

-- title: arithmetic on whole numbers of a domain
SELECT grade * 10 + 1 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"grade","op":"=","value":"0"},{"kind":"compare","column":"grade","op":"=","value":"1"},{"kind":"compare","column":"grade","op":"=","value":"2"}],"labels":["1","11","21"],"otherwise":null,"type":"int"}]}

-- title: a comparison of a domain
SELECT grade >= 1 AS g, COUNT(*) AS n FROM visits GROUP BY g
-- plan:
{"kind":"query","where":null,"group_by":["g"],"aggregates":[{"function":"count","column":null,"alias":"n"}],"cases":[{"name":"g","whens":[{"kind":"compare","column":"grade","op":"=","value":"0"},{"kind":"one_of","column":"grade","values":["1","2"]}],"labels":["false","true"],"otherwise":null,"type":"bool"}]}

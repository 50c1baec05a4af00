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

-- title: a number with few steps
SELECT stay AS days, COUNT(*) AS n FROM visits GROUP BY days ORDER BY days
-- plan:
{"kind":"query","where":null,"group_by":["g1"],"aggregates":[{"function":"count","column":null,"alias":"f1"}],"cases":[{"name":"g1","whens":[{"kind":"compare","column":"stay","op":"<","value":"1"},{"kind":"compare","column":"stay","op":"<","value":"2"},{"kind":"compare","column":"stay","op":"<","value":"3"},{"kind":"compare","column":"stay","op":"<","value":"4"},{"kind":"compare","column":"stay","op":"<","value":"5"},{"kind":"compare","column":"stay","op":"<","value":"6"},{"kind":"compare","column":"stay","op":"<","value":"7"},{"kind":"compare","column":"stay","op":"<","value":"8"},{"kind":"compare","column":"stay","op":"<","value":"9"},{"kind":"compare","column":"stay","op":"<","value":"10"},{"kind":"compare","column":"stay","op":"<","value":"11"},{"kind":"compare","column":"stay","op":"<","value":"12"},{"kind":"compare","column":"stay","op":"<","value":"13"},{"kind":"compare","column":"stay","op":"<","value":"14"},{"kind":"compare","column":"stay","op":"<","value":"15"},{"kind":"compare","column":"stay","op":"<","value":"16"},{"kind":"compare","column":"stay","op":"<","value":"17"},{"kind":"compare","column":"stay","op":"<","value":"18"},{"kind":"compare","column":"stay","op":"<","value":"19"},{"kind":"compare","column":"stay","op":"<","value":"20"},{"kind":"compare","column":"stay","op":"<","value":"21"},{"kind":"compare","column":"stay","op":"<","value":"22"},{"kind":"compare","column":"stay","op":"<","value":"23"},{"kind":"compare","column":"stay","op":"<","value":"24"},{"kind":"compare","column":"stay","op":"<","value":"25"},{"kind":"compare","column":"stay","op":"<","value":"26"},{"kind":"compare","column":"stay","op":"<","value":"27"},{"kind":"compare","column":"stay","op":"<","value":"28"},{"kind":"compare","column":"stay","op":"<","value":"29"},{"kind":"compare","column":"stay","op":"<","value":"30"},{"kind":"compare","column":"stay","op":"<","value":"31"},{"kind":"compare","column":"stay","op":"<","value":"32"},{"kind":"compare","column":"stay","op":"<","value":"33"},{"kind":"compare","column":"stay","op":"<","value":"34"},{"kind":"compare","column":"stay","op":"<","value":"35"},{"kind":"compare","column":"stay","op":"<","value":"36"},{"kind":"compare","column":"stay","op":"<","value":"37"},{"kind":"compare","column":"stay","op":"<","value":"38"},{"kind":"compare","column":"stay","op":"<","value":"39"},{"kind":"compare","column":"stay","op":"<","value":"40"},{"kind":"compare","column":"stay","op":"<","value":"41"},{"kind":"compare","column":"stay","op":"<","value":"42"},{"kind":"compare","column":"stay","op":"<","value":"43"},{"kind":"compare","column":"stay","op":"<","value":"44"},{"kind":"compare","column":"stay","op":"<","value":"45"},{"kind":"compare","column":"stay","op":"<","value":"46"},{"kind":"compare","column":"stay","op":"<","value":"47"},{"kind":"compare","column":"stay","op":"<","value":"48"},{"kind":"compare","column":"stay","op":"<","value":"49"},{"kind":"compare","column":"stay","op":"<","value":"50"},{"kind":"compare","column":"stay","op":"<","value":"51"},{"kind":"compare","column":"stay","op":"<","value":"52"},{"kind":"compare","column":"stay","op":"<","value":"53"},{"kind":"compare","column":"stay","op":"<","value":"54"},{"kind":"compare","column":"stay","op":"<","value":"55"},{"kind":"compare","column":"stay","op":"<","value":"56"},{"kind":"compare","column":"stay","op":"<","value":"57"},{"kind":"compare","column":"stay","op":"<","value":"58"},{"kind":"compare","column":"stay","op":"<","value":"59"},{"kind":"compare","column":"stay","op":"<","value":"60"},{"kind":"not","operand":{"kind":"is_null","column":"stay"}}],"labels":["0","1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17","18","19","20","21","22","23","24","25","26","27","28","29","30","31","32","33","34","35","36","37","38","39","40","41","42","43","44","45","46","47","48","49","50","51","52","53","54","55","56","57","58","59","60"],"otherwise":null,"type":"int"}]}

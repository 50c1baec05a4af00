-- title: a table joined with itself
SELECT a.ward AS x, b.ward AS y, COUNT(*) AS n FROM visits a JOIN visits b USING (patient_id) GROUP BY x, y
-- error:
JOIN of a table with itself is not supported at line 1, column 67
-- hint:
count who has both of two values: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE ward = 'medicine') > 0 AND COUNT(*) FILTER (WHERE ward = 'surgery') > 0)

-- title: a table joined with itself by a number
SELECT COUNT(*) AS n FROM visits a JOIN visits b ON a.patient_id = b.patient_id WHERE a.age = b.age
-- error:
JOIN of a table with itself is not supported at line 1, column 41
-- hint:
count who has both of two values: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE age = 0) > 0 AND COUNT(*) FILTER (WHERE age = 1) > 0)

-- title: a table joined with itself, of two conditions
SELECT COUNT(DISTINCT a.patient_id) FROM visits a JOIN visits b USING (patient_id) WHERE a.ward = 'surgery' AND b.ward = 'medicine' AND b.age > 50
-- error:
JOIN of a table with itself is not supported at line 1, column 56
-- hint:
count who has rows of both kinds: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE ward = 'surgery') > 0 AND COUNT(*) FILTER (WHERE ward = 'medicine' AND age > 50) > 0)

-- title: a table of others
SELECT COUNT(*) FROM visits JOIN loans ON visits.patient_id = loans.applicant_id
-- error:
'loans' is no table to join at line 1, column 34
-- hint:
no person is matched across silos; ask about each table alone, and compare the answers; tables that silos open: visits

-- title: what each person comes to beside rows
SELECT v.ward, COUNT(*) FROM visits v JOIN (SELECT patient_id, MIN(grade) AS g FROM visits GROUP BY 1) f USING (patient_id) GROUP BY v.ward
-- error:
JOIN of rows with a subquery is not supported at line 1, column 52
-- hint:
let what all rows of a person come to stand beside a row for each group: SELECT first, ward, COUNT(*) FROM (SELECT patient_id, ward, MIN(ward) OVER (PARTITION BY patient_id) AS first FROM visits GROUP BY patient_id, ward) GROUP BY first, ward

-- title: persons who are in another list
SELECT COUNT(DISTINCT patient_id) FROM visits WHERE ward = 'surgery' AND patient_id IN (SELECT patient_id FROM visits WHERE ward = 'medicine')
-- error:
the question matches persons of 'visits' with those of 'visits' again at line 1, column 74
-- hint:
make one row of each person: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE ward = 'surgery') > 0 AND COUNT(*) FILTER (WHERE ward = 'medicine') > 0)

-- title: persons who are in no other list
SELECT COUNT(DISTINCT patient_id) FROM visits WHERE ward = 'surgery' AND patient_id NOT IN (SELECT patient_id FROM visits WHERE ward = 'medicine')
-- error:
the question matches persons of 'visits' with those of 'visits' again at line 1, column 74
-- hint:
make one row of each person: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE ward = 'surgery') > 0 AND COUNT(*) FILTER (WHERE ward = 'medicine') = 0)

-- title: persons with another row
SELECT COUNT(DISTINCT patient_id) FROM visits v WHERE v.ward = 'surgery' AND EXISTS (SELECT 1 FROM visits w WHERE w.patient_id = v.patient_id AND w.grade = 1)
-- error:
the question matches persons of 'visits' with those of 'visits' again at line 1, column 93
-- hint:
make one row of each person: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE ward = 'surgery') > 0 AND COUNT(*) FILTER (WHERE grade = 1) > 0)

-- title: persons of two lists
SELECT COUNT(*) FROM (SELECT patient_id FROM visits WHERE smoker INTERSECT SELECT patient_id FROM visits WHERE grade = 2)
-- error:
the question matches persons of 'visits' with those of 'visits' again at line 1, column 30
-- hint:
make one row of each person: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE smoker) > 0 AND COUNT(*) FILTER (WHERE grade = 2) > 0)

-- title: persons of one list and not of another
SELECT COUNT(*) FROM (SELECT patient_id FROM visits WHERE smoker EXCEPT SELECT patient_id FROM visits WHERE grade = 2)
-- error:
the question matches persons of 'visits' with those of 'visits' again at line 1, column 30
-- hint:
make one row of each person: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE smoker) > 0 AND COUNT(*) FILTER (WHERE grade = 2) = 0)

-- title: persons who are in a whole list
SELECT COUNT(*) FROM visits WHERE patient_id IN (SELECT patient_id FROM visits)
-- error:
the question matches persons of 'visits' with those of 'visits' again at line 1, column 35
-- hint:
make one row of each person: SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) FILTER (WHERE ...) > 0)

-- title: the row before
SELECT AVG(gap) FROM (SELECT patient_id, grade - LAG(grade) OVER (PARTITION BY patient_id ORDER BY grade) AS gap FROM visits)
-- error:
LAG(grade) OVER (PARTITION BY patient_id ORDER BY grade) is not supported at line 1, column 50
-- hint:
silos compare no two rows of a person; count in how many groups each has rows: SELECT n, COUNT(*) FROM (SELECT patient_id, COUNT(DISTINCT ward) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: the second row
SELECT grade, COUNT(*) FROM (SELECT grade, ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY grade) AS r FROM visits) WHERE r = 2 GROUP BY grade
-- error:
ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY grade) is not supported at line 1, column 44
-- hint:
silos compare no two rows of a person; count in how many groups each has rows: SELECT n, COUNT(*) FROM (SELECT patient_id, COUNT(DISTINCT ward) AS n FROM visits GROUP BY patient_id) GROUP BY n

-- title: a first value beside each row
SELECT first, ward, COUNT(DISTINCT patient_id) FROM (SELECT patient_id, ward, MIN(grade) OVER (PARTITION BY patient_id) AS first FROM visits) GROUP BY 1, 2
-- error:
MIN(grade) OVER (PARTITION BY patient_id) is not supported at line 1, column 83
-- hint:
make one row of a person in each group: SELECT first, ward, COUNT(*) FROM (SELECT patient_id, ward, MIN(MIN(grade)) OVER (PARTITION BY patient_id) AS first FROM visits GROUP BY patient_id, ward) GROUP BY first, ward

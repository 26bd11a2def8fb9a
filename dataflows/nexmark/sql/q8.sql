SELECT DISTINCT person.id, name, window_start, window_start + 10000 AS window_end
FROM (SELECT *, dateTime // 10000 * 10000 AS window_start FROM person) AS person
JOIN (SELECT *, dateTime // 10000 * 10000 AS window_start FROM auction) AS auction
    USING (window_start)
WHERE person.id = seller

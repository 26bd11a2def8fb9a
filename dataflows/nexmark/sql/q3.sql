SELECT name, city, state, auction.id AS auction, count(*) AS count
FROM auction JOIN person ON auction.seller = person.id
WHERE category = 10 AND state IN ('OR', 'ID', 'CA')
GROUP BY ALL

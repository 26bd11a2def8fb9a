SELECT *, count(*) AS count FROM bid GROUP BY ALL

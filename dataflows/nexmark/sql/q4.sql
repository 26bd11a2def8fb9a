SELECT category, avg(price) AS final
FROM (
    SELECT auction.id, category, max(price) AS price
    FROM auction JOIN bid ON auction.id = bid.auction
    WHERE bid.dateTime BETWEEN auction.dateTime AND expires
    GROUP BY auction.id, category
)
GROUP BY category

WITH winning AS (
    SELECT auction.id, seller, expires, max(price) AS price
    FROM auction JOIN bid ON auction.id = bid.auction
    WHERE bid.dateTime BETWEEN auction.dateTime AND expires
    GROUP BY ALL
), last AS (
    SELECT *
    FROM winning
    QUALIFY row_number() OVER (PARTITION BY seller ORDER BY expires DESC, id DESC) <= 10
)
SELECT seller, avg(price) AS price FROM last GROUP BY seller

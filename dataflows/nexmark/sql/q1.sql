SELECT auction, bidder, price * 908 AS price_milli, dateTime AS date_time, extra, count(*) AS count
FROM bid
GROUP BY ALL

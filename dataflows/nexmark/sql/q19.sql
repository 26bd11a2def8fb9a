SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price DESC, dateTime DESC) AS rank,
    price, dateTime AS date_time, bidder, channel
FROM bid
QUALIFY rank <= 10

SELECT auction.id AS auction, price, bid.dateTime AS bid_time, bidder,
    itemName AS item_name, seller, category, expires
FROM auction JOIN bid ON auction.id = bid.auction
WHERE bid.dateTime BETWEEN auction.dateTime AND expires
QUALIFY row_number() OVER (PARTITION BY auction.id ORDER BY price DESC, bid.dateTime) = 1

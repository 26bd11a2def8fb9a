SELECT auction, bidder, price, channel, bid.dateTime AS bid_time,
    itemName AS item_name, initialBid AS initial_bid, reserve,
    auction.dateTime AS auction_time, expires, seller, count(*) AS count
FROM bid JOIN auction ON bid.auction = auction.id
WHERE category = 10
GROUP BY ALL

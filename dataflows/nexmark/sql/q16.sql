SELECT channel, dateTime // 86400000 * 86400000 AS window_start, window_start + 86400000 AS window_end,
    max(dateTime) AS last_bid,
    {total: count(*),
        rank1: count(*) FILTER (price < 10000),
        rank2: count(*) FILTER (price >= 10000 AND price < 1000000),
        rank3: count(*) FILTER (price >= 1000000)} AS bids,
    {total: count(DISTINCT bidder),
        rank1: count(DISTINCT bidder) FILTER (price < 10000),
        rank2: count(DISTINCT bidder) FILTER (price >= 10000 AND price < 1000000),
        rank3: count(DISTINCT bidder) FILTER (price >= 1000000)} AS bidders,
    {total: count(DISTINCT auction),
        rank1: count(DISTINCT auction) FILTER (price < 10000),
        rank2: count(DISTINCT auction) FILTER (price >= 10000 AND price < 1000000),
        rank3: count(DISTINCT auction) FILTER (price >= 1000000)} AS auctions
FROM bid
GROUP BY channel, window_start

WITH windowed AS (
    SELECT *, dateTime // 10000 * 10000 AS window_start FROM bid
)
SELECT window_start, window_start + 10000 AS window_end,
    list({auction: auction, bidder: bidder, price: price, date_time: dateTime}
        ORDER BY auction, bidder, dateTime) AS bids
FROM windowed
WHERE (window_start, price) IN (SELECT (window_start, max(price)) FROM windowed GROUP BY window_start)
GROUP BY window_start

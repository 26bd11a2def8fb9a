WITH counts AS (
    SELECT auction, window_start, count(*) AS bids
    FROM (SELECT auction, dateTime // 2000 * 2000 - unnest(range(5)) * 2000 AS window_start FROM bid)
    GROUP BY ALL
)
SELECT window_start, window_start + 10000 AS window_end, bids, list(auction ORDER BY auction) AS auctions
FROM counts
WHERE (window_start, bids) IN (SELECT (window_start, max(bids)) FROM counts GROUP BY window_start)
GROUP BY window_start, bids

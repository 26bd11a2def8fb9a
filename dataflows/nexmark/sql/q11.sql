WITH paused AS (
    SELECT bidder, dateTime, dateTime - lag(dateTime) OVER own AS pause
    FROM bid
    WINDOW own AS (PARTITION BY bidder ORDER BY dateTime)
), numbered AS (
    SELECT *, count(*) FILTER (pause >= 10000) OVER own AS session
    FROM paused
    WINDOW own AS (PARTITION BY bidder ORDER BY dateTime ROWS UNBOUNDED PRECEDING)
)
SELECT bidder, min(dateTime) AS window_start, max(dateTime) + 10000 AS window_end, count(*) AS bids
FROM numbered
GROUP BY bidder, session

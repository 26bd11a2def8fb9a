SELECT auction, bidder, price * 908 AS price_milli,
    CASE
        WHEN hour(make_timestamp_ms(dateTime)) BETWEEN 8 AND 18 THEN 'day'
        WHEN hour(make_timestamp_ms(dateTime)) <= 6 OR hour(make_timestamp_ms(dateTime)) >= 20 THEN 'night'
        ELSE 'other'
    END AS time_of_day,
    dateTime AS date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_count,
    count(*) AS count
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
GROUP BY ALL

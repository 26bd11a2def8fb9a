SELECT auction, price, count(*) AS count FROM bid WHERE auction % 123 = 0 GROUP BY ALL

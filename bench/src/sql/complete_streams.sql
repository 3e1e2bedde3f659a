-- $1 how many events each stream is to have. Gives how many have them, and the last position if positions are dense.
SELECT (SELECT count(*)
          FROM (SELECT 1 FROM events GROUP BY stream HAVING max(version) = $1 AND count(*) = $1) complete),
       (SELECT max(position) FROM events HAVING max(position) = count(*))

-- No binds. Locks: the lane, until the end of the transaction.
SELECT take_lane()

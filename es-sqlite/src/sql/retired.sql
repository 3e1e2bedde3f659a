-- binds: none
-- locks: none
SELECT id FROM generations WHERE state = 'retired' ORDER BY id

-- How many documents there are, and of how many events they tell.
SELECT count(*), coalesce(sum((convert_from(document, 'UTF8')::json ->> 'changes')::bigint), 0)::bigint FROM documents

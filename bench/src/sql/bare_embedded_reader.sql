INSERT INTO readers (id, name, definition) VALUES (1, 'bare', 'projection') ON CONFLICT DO NOTHING

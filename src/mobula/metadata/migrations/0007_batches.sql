-- Many requests in one statement: one round trip, one look at the lease, and for writes one wait for the standby.

-- One entry, inserted or replaced, in the caller's transaction, which holds the directory's and the group's locks, and checks the lease
-- at its end. NULL: done; else what stopped it, as a word. As put_entry of 0004.
CREATE FUNCTION metadata.put_one(
  n metadata.entry, p_insert boolean, p_parent_is_root boolean, p_epoch bigint, any_of text[], none_of text[], p_limit bigint
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  o metadata.entry;
  why text;
BEGIN
  LOOP
    -- A writer of the same name waits here; a first writer is held by the primary key below.
    SELECT * INTO o FROM metadata.entry e WHERE e.vnode = n.vnode AND e.directory = n.directory AND e.name = n.name FOR UPDATE;
    why := metadata.put_refusal(o, n, p_insert, p_parent_is_root, p_epoch, any_of, none_of, p_limit);
    IF why IS NOT NULL THEN
      RETURN why;
    END IF;
    EXIT WHEN o.name IS NOT NULL;
    INSERT INTO metadata.entry SELECT n.* ON CONFLICT DO NOTHING;
    IF FOUND THEN
      PERFORM metadata.count_entry(n.vnode, n.directory, 1);
      RETURN NULL;
    END IF;
    -- Somebody else was first, between our look and our insert: decide again, on what is there now.
  END LOOP;
  IF o.kind = 'directory' AND o.headers = n.headers AND o.role_tags = n.role_tags THEN
    -- mkdir of a directory that is there as wanted changes nothing that anybody sees.
    UPDATE metadata.entry e SET incarnation = n.incarnation
      WHERE e.vnode = n.vnode AND e.directory = n.directory AND e.name = n.name AND e.incarnation < n.incarnation;
  ELSE
    PERFORM metadata.discard(o);
    UPDATE metadata.entry e
      SET kind = n.kind, mtime = n.mtime, headers = n.headers, role_tags = n.role_tags, etag = n.etag, size = n.size, md5 = n.md5,
          content_type = n.content_type, object_id = n.object_id, account = n.account, group_id = n.group_id, copies = n.copies,
          incarnation = n.incarnation, reference = n.reference
      WHERE e.vnode = n.vnode AND e.directory = n.directory AND e.name = n.name;
  END IF;
  RETURN NULL;
END$$;

-- p_puts: [{an entry's columns, "insert", "parent_is_root", "epoch", "any_of", "none_of"}], sorted by directory and name, so that no two
-- batches wait for each other; p_groups: their placement groups, sorted. Answers a word or NULL for each.
CREATE FUNCTION metadata.put_entries(p_groups int[], p_puts jsonb, p_limit bigint)
RETURNS TABLE (generation bigint, refused text[]) LANGUAGE plpgsql AS $$
DECLARE
  item jsonb;
  n metadata.entry;
  here_vnode int;
  here text;
  active boolean;
  room bigint;
  added int := 0;
  words text[] := '{}';
BEGIN
  PERFORM pg_advisory_xact_lock_shared(1, g) FROM unnest(p_groups) g;
  FOR item IN SELECT * FROM jsonb_array_elements(p_puts) LOOP
    n := jsonb_populate_record(NULL::metadata.entry, item);
    IF here IS DISTINCT FROM n.directory THEN
      IF added > 0 THEN
        PERFORM metadata.count_entry(here_vnode, here, added);
      END IF;
      here := n.directory;
      here_vnode := n.vnode;
      added := 0;
      PERFORM metadata.lock_directory(here_vnode, here, false);
      active := EXISTS (SELECT FROM metadata.directory d WHERE d.vnode = here_vnode AND d.path = here AND d.state = 'active');
      room := p_limit - metadata.entries_of(here_vnode, here);
    END IF;
    -- A new object without conditions, as most are.
    IF n.kind = 'object' AND item->'any_of' = 'null' AND item->'none_of' = 'null' AND (active OR (item->'parent_is_root')::boolean)
       AND added < room
       AND (n.size = 0 OR EXISTS (SELECT FROM metadata.placement_group g WHERE g.id = n.group_id AND g.epoch = (item->'epoch')::bigint)) THEN
      INSERT INTO metadata.entry SELECT n.* ON CONFLICT DO NOTHING;
      IF FOUND THEN
        added := added + 1;
        words := words || NULL::text;
        CONTINUE;
      END IF;
    END IF;
    IF added > 0 THEN
      PERFORM metadata.count_entry(here_vnode, here, added);
      added := 0;
    END IF;
    words := words || metadata.put_one(
      n, (item->'insert')::boolean, (item->'parent_is_root')::boolean, (item->'epoch')::bigint,
      CASE WHEN item->'any_of' <> 'null' THEN ARRAY(SELECT jsonb_array_elements_text(item->'any_of')) END,
      CASE WHEN item->'none_of' <> 'null' THEN ARRAY(SELECT jsonb_array_elements_text(item->'none_of')) END, p_limit);
    room := p_limit - metadata.entries_of(here_vnode, here);
  END LOOP;
  IF added > 0 THEN
    PERFORM metadata.count_entry(here_vnode, here, added);
  END IF;
  RETURN QUERY SELECT fence.require(), words;
END$$;

-- As lookup, for several names; answers in their order.
CREATE FUNCTION metadata.lookup_all(p_vnodes int[], p_directories text[], p_names text[])
RETURNS TABLE (generation bigint, directory_active boolean, entry json) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  -- One statement: what it reads is at least as old as its look at the lease.
  RETURN QUERY SELECT fence.leased(),
    EXISTS (SELECT FROM metadata.directory d WHERE d.vnode = w.vnode AND d.path = w.directory AND d.state = 'active'),
    (SELECT row_to_json(e) FROM metadata.entry e WHERE e.vnode = w.vnode AND e.directory = w.directory AND e.name = w.name)
  FROM unnest(p_vnodes, p_directories, p_names) WITH ORDINALITY w (vnode, directory, name, number) ORDER BY w.number;
END$$;

-- As list_directory, but json: to make jsonb of a page takes three times as long.
CREATE FUNCTION metadata.page(
  p_vnode int, p_path text, p_limit int, p_marker text, p_order text, p_reverse boolean, p_kind text
) RETURNS TABLE (generation bigint, directory_active boolean, total bigint, entries json) LANGUAGE plpgsql AS $$
DECLARE
  page json;
  statement text;
BEGIN
  -- Four directions, each with an ORDER BY that an index or a plain sort can serve.
  statement := 'SELECT coalesce(json_agg(p.e), ''[]'') FROM (SELECT row_to_json(e) AS e FROM metadata.entry e '
    || 'WHERE e.vnode = $1 AND e.directory = $2 AND ($3 IS NULL OR e.kind = $3) AND ($4 IS NULL OR '
    || CASE WHEN p_order = 'name' AND NOT p_reverse THEN 'e.name >= $4 COLLATE "C") ORDER BY e.name'
            WHEN p_order = 'name' THEN 'e.name <= $4 COLLATE "C") ORDER BY e.name DESC'
            WHEN NOT p_reverse THEN 'date_trunc(''milliseconds'', e.mtime) <= $4::timestamptz) ORDER BY e.mtime DESC, e.name'
            ELSE 'date_trunc(''milliseconds'', e.mtime) >= $4::timestamptz) ORDER BY e.mtime, e.name' END
    || ' LIMIT $5) p';
  EXECUTE statement INTO page USING p_vnode, p_path, p_kind, p_marker, p_limit;
  RETURN QUERY SELECT fence.leased(),
    EXISTS (SELECT FROM metadata.directory d WHERE d.vnode = p_vnode AND d.path = p_path AND d.state = 'active'),
    metadata.entries_of(p_vnode, p_path), page;
END$$;

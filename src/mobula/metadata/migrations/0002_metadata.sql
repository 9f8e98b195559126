-- Entries, directories, garbage and placement groups of one shard. vnode leads every key, so that vnodes can move.
CREATE SCHEMA metadata;

CREATE TABLE metadata.placement_group (
  id int PRIMARY KEY,
  epoch bigint NOT NULL,
  servers jsonb NOT NULL          -- ordered [{"id", "az", "address", "port"}]; the first three are in three AZs
);

CREATE TABLE metadata.entry (
  vnode int NOT NULL,
  directory text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  kind text NOT NULL CHECK (kind IN ('object', 'directory')),
  mtime timestamptz NOT NULL,
  headers jsonb NOT NULL DEFAULT '{}',
  role_tags text[] NOT NULL DEFAULT '{}',
  etag text NOT NULL DEFAULT '',
  size bigint NOT NULL DEFAULT 0,
  md5 bytea NOT NULL DEFAULT '',
  content_type text NOT NULL DEFAULT '',
  object_id uuid,
  account uuid,
  group_id int NOT NULL DEFAULT 0,
  copies int NOT NULL DEFAULT 0,
  PRIMARY KEY (vnode, directory, name)
);

-- A directory's own row lives with its children. 'creating': the parent has no entry yet; 'deleting': no child may come any more.
CREATE TABLE metadata.directory (
  vnode int NOT NULL,
  path text COLLATE "C" NOT NULL,
  state text NOT NULL CHECK (state IN ('creating', 'active', 'deleting')),
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (vnode, path)
);
CREATE INDEX directory_unfinished ON metadata.directory (changed_at) WHERE state <> 'active';

-- Number of a directory's entries, as deltas: no insert updates a row that another one updates. Folded now and then.
CREATE TABLE metadata.directory_count (
  vnode int NOT NULL,
  path text COLLATE "C" NOT NULL,
  delta bigint NOT NULL
);
CREATE INDEX directory_count_path ON metadata.directory_count (vnode, path);

-- Bytes that no entry names any more: one row for each dropped or replaced non-empty object, in the dropping transaction.
CREATE TABLE metadata.garbage (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  vnode int NOT NULL,
  account uuid NOT NULL,
  object_id uuid NOT NULL,
  size bigint NOT NULL,
  md5 bytea NOT NULL,
  group_id int NOT NULL,
  copies int NOT NULL,
  dropped_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A directory's lock: shared by all who add or drop a child, exclusive for who removes the directory. Ends with the transaction.
CREATE FUNCTION metadata.lock_directory(p_vnode int, p_path text, exclusive boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  key bigint := hashtextextended(p_path, p_vnode);
BEGIN
  IF exclusive THEN
    PERFORM pg_advisory_xact_lock(key);
  ELSE
    PERFORM pg_advisory_xact_lock_shared(key);
  END IF;
END$$;

-- One round trip: the entry (if any), whether the directory is active, and the generation under which this holds.
CREATE FUNCTION metadata.lookup(p_vnode int, p_directory text, p_name text)
RETURNS TABLE (generation bigint, directory_active boolean, entry jsonb) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(),
         EXISTS (SELECT FROM metadata.directory d WHERE d.vnode = p_vnode AND d.path = p_directory AND d.state = 'active'),
         (SELECT to_jsonb(e) FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name)
$$;

-- What stops a write, as a word that the caller turns into an error. NULL: nothing.
CREATE FUNCTION metadata.refusal(e metadata.entry, any_of text[], none_of text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN any_of IS NOT NULL AND any_of = '{}' AND e.name IS NOT NULL THEN 'precondition'
    WHEN any_of IS NOT NULL AND any_of <> '{}'
         AND (e.name IS NULL OR NOT ('*' = ANY (any_of) OR e.etag = ANY (any_of))) THEN 'precondition'
    WHEN none_of IS NOT NULL AND e.name IS NOT NULL AND ('*' = ANY (none_of) OR e.etag = ANY (none_of)) THEN 'precondition'
  END
$$;

CREATE FUNCTION metadata.discard(e metadata.entry) RETURNS void LANGUAGE sql AS $$
  INSERT INTO metadata.garbage (vnode, account, object_id, size, md5, group_id, copies)
  SELECT e.vnode, e.account, e.object_id, e.size, e.md5, e.group_id, e.copies WHERE e.kind = 'object' AND e.size > 0
$$;

-- Insert or replace an object, or put the entry of a directory. Answers (generation, refusal word or NULL, entry as stored).
CREATE FUNCTION metadata.put_entry(
  p_vnode int, p_directory text, p_entry jsonb, p_parent_is_root boolean, p_epoch bigint, any_of text[], none_of text[], p_limit bigint
) RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  n metadata.entry := jsonb_populate_record(NULL::metadata.entry, p_entry);
  o metadata.entry;
BEGIN
  PERFORM metadata.lock_directory(p_vnode, p_directory, false);
  IF NOT p_parent_is_root AND NOT EXISTS (
    SELECT FROM metadata.directory d WHERE d.vnode = p_vnode AND d.path = p_directory AND d.state = 'active') THEN
    RETURN QUERY SELECT fence.require(), 'directory_missing';
    RETURN;
  END IF;
  -- A writer of the same name waits here; a first writer is held by the primary key below.
  SELECT * INTO o FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = n.name FOR UPDATE;
  IF o.kind = 'directory' AND n.kind = 'object' THEN
    RETURN QUERY SELECT fence.require(), 'is_directory';
    RETURN;
  END IF;
  IF metadata.refusal(o, any_of, none_of) IS NOT NULL THEN
    RETURN QUERY SELECT fence.require(), metadata.refusal(o, any_of, none_of);
    RETURN;
  END IF;
  IF n.size > 0 THEN
    -- Not FOR SHARE: that writes to the row, and every put of the group would meet there.
    PERFORM pg_advisory_xact_lock_shared(1, n.group_id);
    IF NOT EXISTS (SELECT FROM metadata.placement_group g WHERE g.id = n.group_id AND g.epoch = p_epoch) THEN
      RETURN QUERY SELECT fence.require(), 'group_changed';
      RETURN;
    END IF;
  END IF;
  n.vnode := p_vnode;
  n.directory := p_directory;
  IF o.name IS NULL THEN
    IF p_limit > 0 AND metadata.entries_of(p_vnode, p_directory) >= p_limit THEN
      RETURN QUERY SELECT fence.require(), 'directory_full';
      RETURN;
    END IF;
    INSERT INTO metadata.entry SELECT n.* ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      -- Somebody else was first, between our look and our insert: decide again, on what is there now.
      RETURN QUERY SELECT * FROM metadata.put_entry(p_vnode, p_directory, p_entry, p_parent_is_root, p_epoch, any_of, none_of, p_limit);
      RETURN;
    END IF;
    INSERT INTO metadata.directory_count VALUES (p_vnode, p_directory, 1);
  ELSIF NOT (o.kind = 'directory' AND o.headers = n.headers AND o.role_tags = n.role_tags) THEN
    -- (mkdir of a directory that is there as wanted changes nothing.)
    PERFORM metadata.discard(o);
    UPDATE metadata.entry e
      SET kind = n.kind, mtime = n.mtime, headers = n.headers, role_tags = n.role_tags, etag = n.etag, size = n.size, md5 = n.md5,
          content_type = n.content_type, object_id = n.object_id, account = n.account, group_id = n.group_id, copies = n.copies
      WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = n.name;
  END IF;
  RETURN QUERY SELECT fence.require(), NULL::text;
END$$;

CREATE FUNCTION metadata.put_metadata(
  p_vnode int, p_directory text, p_name text, p_headers jsonb, p_role_tags text[], p_content_type text, any_of text[], none_of text[]
) RETURNS TABLE (generation bigint, refused text, entry jsonb) LANGUAGE plpgsql AS $$
DECLARE
  o metadata.entry;
BEGIN
  SELECT * INTO o FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name FOR UPDATE;
  IF o.name IS NULL THEN
    RETURN QUERY SELECT fence.require(), 'not_found', NULL::jsonb;
    RETURN;
  END IF;
  IF metadata.refusal(o, any_of, none_of) IS NOT NULL THEN
    RETURN QUERY SELECT fence.require(), metadata.refusal(o, any_of, none_of), NULL::jsonb;
    RETURN;
  END IF;
  UPDATE metadata.entry e
    SET headers = p_headers, role_tags = p_role_tags, mtime = clock_timestamp(),
        content_type = CASE WHEN e.kind = 'object' THEN coalesce(p_content_type, e.content_type) ELSE e.content_type END
    WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name
    RETURNING * INTO o;
  RETURN QUERY SELECT fence.require(), NULL::text, to_jsonb(o);
END$$;

-- Drop an entry: an object (its bytes become garbage), or, with p_kind 'directory', the entry of a directory that is going.
CREATE FUNCTION metadata.delete_entry(p_vnode int, p_directory text, p_name text, p_kind text, any_of text[], none_of text[])
RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  o metadata.entry;
BEGIN
  SELECT * INTO o FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name FOR UPDATE;
  IF o.name IS NULL THEN
    RETURN QUERY SELECT fence.require(), 'not_found';
  ELSIF o.kind <> p_kind THEN
    RETURN QUERY SELECT fence.require(), CASE o.kind WHEN 'directory' THEN 'is_directory' ELSE 'not_directory' END;
  ELSIF metadata.refusal(o, any_of, none_of) IS NOT NULL THEN
    RETURN QUERY SELECT fence.require(), metadata.refusal(o, any_of, none_of);
  ELSE
    PERFORM metadata.discard(o);
    DELETE FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name;
    INSERT INTO metadata.directory_count VALUES (p_vnode, p_directory, -1);
    RETURN QUERY SELECT fence.require(), NULL::text;
  END IF;
END$$;

CREATE FUNCTION metadata.entries_of(p_vnode int, p_path text) RETURNS bigint LANGUAGE sql STABLE AS
$$SELECT coalesce(sum(delta), 0)::bigint FROM metadata.directory_count WHERE vnode = p_vnode AND path = p_path$$;

-- mkdir's first and last step on the shard of the directory's children. A directory that is going answers 'deleting'.
CREATE FUNCTION metadata.begin_directory(p_vnode int, p_path text)
RETURNS TABLE (generation bigint, state text) LANGUAGE plpgsql AS $$
DECLARE
  found_state text;
BEGIN
  INSERT INTO metadata.directory (vnode, path, state) VALUES (p_vnode, p_path, 'creating')
  ON CONFLICT (vnode, path) DO NOTHING;
  -- Young again: the sweeper leaves a mkdir alone that is being tried now.
  UPDATE metadata.directory d SET changed_at = clock_timestamp() WHERE d.vnode = p_vnode AND d.path = p_path AND d.state = 'creating';
  SELECT d.state INTO found_state FROM metadata.directory d WHERE d.vnode = p_vnode AND d.path = p_path;
  RETURN QUERY SELECT fence.require(), found_state;
END$$;

CREATE FUNCTION metadata.activate_directory(p_vnode int, p_path text)
RETURNS TABLE (generation bigint, done boolean) LANGUAGE plpgsql AS $$
BEGIN
  UPDATE metadata.directory d SET state = 'active', changed_at = clock_timestamp()
    WHERE d.vnode = p_vnode AND d.path = p_path AND d.state <> 'deleting';
  RETURN QUERY SELECT fence.require(), FOUND;
END$$;

-- rmdir's first step: under the exclusive lock nobody is adding a child, so "empty" stays true once the state is 'deleting'.
CREATE FUNCTION metadata.begin_rmdir(p_vnode int, p_path text)
RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM metadata.lock_directory(p_vnode, p_path, true);
  IF EXISTS (SELECT FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_path) THEN
    RETURN QUERY SELECT fence.require(), 'not_empty';
    RETURN;
  END IF;
  UPDATE metadata.directory d SET state = 'deleting', changed_at = clock_timestamp() WHERE d.vnode = p_vnode AND d.path = p_path;
  RETURN QUERY SELECT fence.require(), CASE WHEN FOUND THEN NULL ELSE 'not_found' END;
END$$;

-- rmdir's last step, once the parent's entry is gone; also how the sweeper drops a mkdir that never reached its parent.
CREATE FUNCTION metadata.finish_rmdir(p_vnode int, p_path text, p_state text, p_older_than interval)
RETURNS TABLE (generation bigint, done boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean;
BEGIN
  PERFORM metadata.lock_directory(p_vnode, p_path, true);
  DELETE FROM metadata.directory d
    WHERE d.vnode = p_vnode AND d.path = p_path AND d.state = p_state AND d.changed_at <= clock_timestamp() - p_older_than;
  gone := FOUND;
  IF gone THEN
    DELETE FROM metadata.directory_count c WHERE c.vnode = p_vnode AND c.path = p_path;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

CREATE FUNCTION metadata.unfinished_directories(p_older_than interval)
RETURNS TABLE (generation bigint, vnode int, path text, state text) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), d.vnode, d.path, d.state FROM metadata.directory d
  WHERE d.state <> 'active' AND d.changed_at < clock_timestamp() - p_older_than ORDER BY d.changed_at LIMIT 1000
$$;

-- Fold a directory's deltas into one row. The exclusive lock keeps writers of the directory out for that moment.
CREATE FUNCTION metadata.fold_counts(p_rows int) RETURNS TABLE (generation bigint, folded int) LANGUAGE plpgsql AS $$
DECLARE
  d record;
  n int := 0;
BEGIN
  FOR d IN SELECT c.vnode, c.path FROM metadata.directory_count c GROUP BY 1, 2 HAVING count(*) > p_rows LIMIT 100 LOOP
    CONTINUE WHEN NOT pg_try_advisory_xact_lock(hashtextextended(d.path, d.vnode));
    WITH gone AS (DELETE FROM metadata.directory_count c WHERE c.vnode = d.vnode AND c.path = d.path RETURNING delta)
    INSERT INTO metadata.directory_count SELECT d.vnode, d.path, sum(delta) FROM gone HAVING sum(delta) <> 0;
    n := n + 1;
  END LOOP;
  RETURN QUERY SELECT fence.require(), n;
END$$;

-- A page of a directory. p_order: 'name' or 'mtime' (newest first); the marker is inclusive in the direction of the sort.
CREATE FUNCTION metadata.list_directory(
  p_vnode int, p_path text, p_limit int, p_marker text, p_order text, p_reverse boolean, p_kind text
) RETURNS TABLE (generation bigint, directory_active boolean, total bigint, entries jsonb) LANGUAGE plpgsql AS $$
DECLARE
  page jsonb;
  statement text;
BEGIN
  -- Four directions, each with an ORDER BY that an index or a plain sort can serve.
  statement := 'SELECT coalesce(jsonb_agg(p.e), ''[]'') FROM (SELECT to_jsonb(e) AS e FROM metadata.entry e '
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

CREATE FUNCTION metadata.groups() RETURNS TABLE (generation bigint, id int, epoch bigint, servers jsonb) LANGUAGE sql VOLATILE AS
$$SELECT fence.leased(), g.id, g.epoch, g.servers FROM metadata.placement_group g ORDER BY g.id$$;

-- Wanted groups as [{"id", "epoch", "servers"}]; the caller moves the epoch of a group whose servers change. Answers how many changed.
CREATE FUNCTION metadata.ensure_groups(p_groups jsonb) RETURNS TABLE (generation bigint, changed int) LANGUAGE plpgsql AS $$
DECLARE
  n int;
BEGIN
  -- Puts that checked the old epoch finish first.
  PERFORM pg_advisory_xact_lock(1, (w->>'id')::int) FROM jsonb_array_elements(p_groups) w;
  INSERT INTO metadata.placement_group AS g (id, epoch, servers)
  SELECT (w->>'id')::int, (w->>'epoch')::bigint, w->'servers' FROM jsonb_array_elements(p_groups) w
  ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, servers = excluded.servers WHERE g.epoch < excluded.epoch;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN QUERY SELECT fence.require(), n;
END$$;

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
  incarnation bigint NOT NULL DEFAULT 0,  -- of a directory: which of its rows this entry belongs to
  PRIMARY KEY (vnode, directory, name)
);

-- A directory's own row lives with its children. 'creating': the parent may have no entry yet; 'deleting': no child may come any
-- more. Each new row of a path has a higher incarnation than all earlier ones, so that a step that comes late does no harm.
CREATE SEQUENCE metadata.incarnation;
CREATE TABLE metadata.directory (
  vnode int NOT NULL,
  path text COLLATE "C" NOT NULL,
  incarnation bigint NOT NULL DEFAULT nextval('metadata.incarnation'),
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

CREATE FUNCTION metadata.entries_of(p_vnode int, p_path text) RETURNS bigint LANGUAGE sql STABLE AS
$$SELECT coalesce(sum(delta), 0)::bigint FROM metadata.directory_count WHERE vnode = p_vnode AND path = p_path$$;

-- Note that a directory has one entry more or less; fold its deltas into one row when there are many and nobody else is at it.
-- Who folds locks the old rows until its commit is acknowledged; nobody else ever touches them.
CREATE FUNCTION metadata.count_entry(p_vnode int, p_path text, p_delta int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM (SELECT FROM metadata.directory_count WHERE vnode = p_vnode AND path = p_path LIMIT 64) c) = 64
     AND pg_try_advisory_xact_lock(2, hashtext(p_path)) THEN
    WITH gone AS (DELETE FROM metadata.directory_count WHERE vnode = p_vnode AND path = p_path RETURNING delta)
    INSERT INTO metadata.directory_count SELECT p_vnode, p_path, sum(delta) FROM gone HAVING sum(delta) <> 0;
  END IF;
  INSERT INTO metadata.directory_count VALUES (p_vnode, p_path, p_delta);
END$$;

-- What stops n from being put where o is (or nothing, then o.name is NULL).
CREATE FUNCTION metadata.put_refusal(
  o metadata.entry, n metadata.entry, p_insert boolean, p_parent_is_root boolean, p_epoch bigint, any_of text[], none_of text[], p_limit bigint
) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF NOT p_parent_is_root AND NOT EXISTS (
    SELECT FROM metadata.directory d WHERE d.vnode = n.vnode AND d.path = n.directory AND d.state = 'active') THEN
    RETURN 'directory_missing';
  ELSIF o.kind = 'directory' AND n.kind = 'object' THEN
    RETURN 'is_directory';
  ELSIF n.kind = 'directory' AND (o.incarnation > n.incarnation OR NOT p_insert AND o.incarnation IS DISTINCT FROM n.incarnation) THEN
    RETURN 'overtaken';
  ELSIF metadata.refusal(o, any_of, none_of) IS NOT NULL THEN
    RETURN metadata.refusal(o, any_of, none_of);
  ELSIF n.size > 0 THEN
    -- Not FOR SHARE: that writes to the row, and every put of the group would meet there.
    PERFORM pg_advisory_xact_lock_shared(1, n.group_id);
    IF NOT EXISTS (SELECT FROM metadata.placement_group g WHERE g.id = n.group_id AND g.epoch = p_epoch) THEN
      RETURN 'group_changed';
    END IF;
  END IF;
  IF o.name IS NULL AND p_limit > 0 AND metadata.entries_of(n.vnode, n.directory) >= p_limit THEN
    RETURN 'directory_full';
  END IF;
  RETURN NULL;
END$$;

-- Insert or replace an entry. Refusals are words. An object: p_epoch is its group's. A directory: its incarnation is in p_entry; an
-- entry of a later one refuses with 'overtaken', and so does p_insert = false when there is none of this one.
CREATE FUNCTION metadata.put_entry(
  p_vnode int, p_directory text, p_entry jsonb, p_insert boolean, p_parent_is_root boolean, p_epoch bigint,
  any_of text[], none_of text[], p_limit bigint
) RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  n metadata.entry := jsonb_populate_record(NULL::metadata.entry, p_entry);
  o metadata.entry;
  why text;
BEGIN
  PERFORM metadata.lock_directory(p_vnode, p_directory, false);
  n.vnode := p_vnode;
  n.directory := p_directory;
  LOOP
    -- A writer of the same name waits here; a first writer is held by the primary key below.
    SELECT * INTO o FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = n.name FOR UPDATE;
    why := metadata.put_refusal(o, n, p_insert, p_parent_is_root, p_epoch, any_of, none_of, p_limit);
    IF why IS NOT NULL THEN
      RETURN QUERY SELECT fence.require(), why;
      RETURN;
    END IF;
    EXIT WHEN o.name IS NOT NULL;
    INSERT INTO metadata.entry SELECT n.* ON CONFLICT DO NOTHING;
    IF FOUND THEN
      PERFORM metadata.count_entry(p_vnode, p_directory, 1);
      RETURN QUERY SELECT fence.require(), NULL::text;
      RETURN;
    END IF;
    -- Somebody else was first, between our look and our insert: decide again, on what is there now.
  END LOOP;
  IF o.kind = 'directory' AND o.headers = n.headers AND o.role_tags = n.role_tags THEN
    -- mkdir of a directory that is there as wanted changes nothing that anybody sees.
    UPDATE metadata.entry e SET incarnation = n.incarnation
      WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = n.name AND e.incarnation < n.incarnation;
  ELSE
    PERFORM metadata.discard(o);
    UPDATE metadata.entry e
      SET kind = n.kind, mtime = n.mtime, headers = n.headers, role_tags = n.role_tags, etag = n.etag, size = n.size, md5 = n.md5,
          content_type = n.content_type, object_id = n.object_id, account = n.account, group_id = n.group_id, copies = n.copies,
          incarnation = n.incarnation
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

-- Drop an object; its bytes become garbage.
CREATE FUNCTION metadata.delete_object(p_vnode int, p_directory text, p_name text, any_of text[], none_of text[])
RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  o metadata.entry;
BEGIN
  SELECT * INTO o FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name FOR UPDATE;
  IF o.name IS NULL THEN
    RETURN QUERY SELECT fence.require(), 'not_found';
  ELSIF o.kind = 'directory' THEN
    RETURN QUERY SELECT fence.require(), 'is_directory';
  ELSIF metadata.refusal(o, any_of, none_of) IS NOT NULL THEN
    RETURN QUERY SELECT fence.require(), metadata.refusal(o, any_of, none_of);
  ELSE
    PERFORM metadata.discard(o);
    DELETE FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name;
    PERFORM metadata.count_entry(p_vnode, p_directory, -1);
    RETURN QUERY SELECT fence.require(), NULL::text;
  END IF;
END$$;

-- The steps of mkdir and rmdir, whose order and safety are src/mobula/metadata/two_shards.py. First those on the children's shard.

-- The directory's row; made in state 'creating' if there is none. No row: it went between the two statements, ask again.
CREATE FUNCTION metadata.begin_directory(p_vnode int, p_path text)
RETURNS TABLE (generation bigint, state text, incarnation bigint) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM metadata.directory d WHERE d.vnode = p_vnode AND d.path = p_path) THEN
    INSERT INTO metadata.directory (vnode, path, state) VALUES (p_vnode, p_path, 'creating') ON CONFLICT DO NOTHING;
  END IF;
  RETURN QUERY SELECT fence.require(), d.state, d.incarnation
    FROM (VALUES (1)) one LEFT JOIN metadata.directory d ON d.vnode = p_vnode AND d.path = p_path;
END$$;

CREATE FUNCTION metadata.activate_directory(p_vnode int, p_path text, p_incarnation bigint)
RETURNS TABLE (generation bigint, done boolean) LANGUAGE plpgsql AS $$
BEGIN
  UPDATE metadata.directory d SET state = 'active', changed_at = clock_timestamp()
    WHERE d.vnode = p_vnode AND d.path = p_path AND d.incarnation = p_incarnation AND d.state = 'creating';
  RETURN QUERY SELECT fence.require(), EXISTS (
    SELECT FROM metadata.directory d
    WHERE d.vnode = p_vnode AND d.path = p_path AND d.incarnation = p_incarnation AND d.state = 'active');
END$$;

-- Under the exclusive lock nobody is adding a child, so "empty" stays true once the state is 'deleting'.
CREATE FUNCTION metadata.begin_removal(p_vnode int, p_path text)
RETURNS TABLE (generation bigint, refused text, incarnation bigint) LANGUAGE plpgsql AS $$
DECLARE
  found_one bigint;
BEGIN
  PERFORM metadata.lock_directory(p_vnode, p_path, true);
  IF EXISTS (SELECT FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_path) THEN
    RETURN QUERY SELECT fence.require(), 'not_empty', NULL::bigint;
    RETURN;
  END IF;
  UPDATE metadata.directory d SET state = 'deleting', changed_at = clock_timestamp()
    WHERE d.vnode = p_vnode AND d.path = p_path RETURNING d.incarnation INTO found_one;
  RETURN QUERY SELECT fence.require(), NULL::text, found_one;
END$$;

-- Drop the row of an incarnation, if it is in that state still.
CREATE FUNCTION metadata.finish_directory(p_vnode int, p_path text, p_incarnation bigint, p_state text)
RETURNS TABLE (generation bigint, done boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean;
BEGIN
  PERFORM metadata.lock_directory(p_vnode, p_path, true);
  DELETE FROM metadata.directory d
    WHERE d.vnode = p_vnode AND d.path = p_path AND d.incarnation = p_incarnation AND d.state = p_state;
  gone := FOUND;
  IF gone THEN
    DELETE FROM metadata.directory_count c WHERE c.vnode = p_vnode AND c.path = p_path;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

-- The rest on the parent's shard: give the entry of a directory to an incarnation of it; drop it.
CREATE FUNCTION metadata.adopt_directory(p_vnode int, p_directory text, p_name text, p_incarnation bigint)
RETURNS TABLE (generation bigint, done boolean) LANGUAGE plpgsql AS $$
BEGIN
  UPDATE metadata.entry e SET incarnation = p_incarnation
    WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name AND e.kind = 'directory'
      AND e.incarnation < p_incarnation;
  RETURN QUERY SELECT fence.require(), EXISTS (
    SELECT FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name
      AND e.kind = 'directory' AND e.incarnation = p_incarnation);
END$$;

CREATE FUNCTION metadata.drop_directory(p_vnode int, p_directory text, p_name text, p_incarnation bigint)
RETURNS TABLE (generation bigint, done boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean;
BEGIN
  DELETE FROM metadata.entry e
    WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name AND e.kind = 'directory'
      AND e.incarnation <= p_incarnation;
  gone := FOUND;
  IF gone THEN
    PERFORM metadata.count_entry(p_vnode, p_directory, -1);
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

CREATE FUNCTION metadata.unfinished_directories(p_older_than interval)
RETURNS TABLE (generation bigint, path text, state text, incarnation bigint) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), d.path, d.state, d.incarnation
  FROM (VALUES (1)) one LEFT JOIN (
    SELECT * FROM metadata.directory WHERE state <> 'active' AND changed_at < clock_timestamp() - p_older_than
    ORDER BY changed_at LIMIT 1000) d ON true
$$;

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
$$SELECT fence.leased(), g.id, g.epoch, g.servers FROM (VALUES (1)) one LEFT JOIN metadata.placement_group g ON true ORDER BY g.id$$;

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

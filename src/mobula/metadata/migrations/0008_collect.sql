-- Garbage collection and sweeping: what the workers ask and write. docs/metadata.md, section 6.

-- "Does anything name these bytes?" is asked of every shard, by object id.
CREATE INDEX entry_object ON metadata.entry (object_id) WHERE object_id IS NOT NULL;
CREATE INDEX garbage_object ON metadata.garbage (object_id);
CREATE INDEX released_object ON metadata.released (object_id);

-- Garbage by where its copies are: rows whose servers are away are passed over without being read.
CREATE INDEX garbage_place ON metadata.garbage (group_id, copies, dropped_at);

-- A reference whose entry was seen need not be looked at again: from then on its entry's end is what gives it up.
ALTER TABLE metadata.reference ADD COLUMN confirmed boolean NOT NULL DEFAULT false;
DROP INDEX metadata.reference_made_at;
CREATE INDEX reference_unconfirmed ON metadata.reference (made_at) WHERE NOT confirmed;

-- What was collected since the shard began. One row, which only the shard's worker updates: no request meets it.
CREATE TABLE metadata.collected (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  objects bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  names bigint NOT NULL DEFAULT 0       -- released rows that were taken to their bytes' home
);
INSERT INTO metadata.collected DEFAULT VALUES;

-- A link that is tried again, or another one of the same source, makes an old reference young: who looks for forgotten ones leaves it alone.
CREATE OR REPLACE FUNCTION metadata.add_references(p_vnode int, p_key text, p_references jsonb)
RETURNS TABLE (generation bigint) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO metadata.reference AS r (vnode, object_id, reference, directory, name)
  SELECT p_vnode, p_key::uuid, (n->>'reference')::uuid, n->>'directory', n->>'name' FROM jsonb_array_elements(p_references) n
  ON CONFLICT (vnode, object_id, reference) DO UPDATE SET made_at = clock_timestamp(), confirmed = false;
  RETURN QUERY SELECT fence.require();
END$$;

-- The age of the oldest transaction that is going on. A commit that waits for a standby is one, and nobody sees yet what it has written:
-- while there is an old one, nothing is concluded from what is not there.
CREATE FUNCTION metadata.oldest_transaction() RETURNS interval LANGUAGE sql VOLATILE AS $$
  SELECT coalesce(max(clock_timestamp() - a.xact_start), interval '0') FROM pg_stat_activity a
  WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
$$;

-- Where garbage lies: each (group, copies) that some row has, with the group as it is now (epoch NULL: there is none).
CREATE FUNCTION metadata.garbage_places()
RETURNS TABLE (generation bigint, group_id int, copies int, epoch bigint, servers jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  -- From one to the next by the index: as many steps as there are places, however many rows each has.
  RETURN QUERY
  WITH RECURSIVE place (group_id, copies) AS (
    (SELECT g.group_id, g.copies FROM metadata.garbage g ORDER BY g.group_id, g.copies LIMIT 1)
    UNION ALL
    SELECT n.group_id, n.copies FROM place p CROSS JOIN LATERAL (
      SELECT g.group_id, g.copies FROM metadata.garbage g WHERE (g.group_id, g.copies) > (p.group_id, p.copies)
      ORDER BY g.group_id, g.copies LIMIT 1) n
  )
  SELECT fence.leased(), p.group_id, p.copies, g.epoch, g.servers
  FROM (VALUES (1)) one LEFT JOIN place p ON true LEFT JOIN metadata.placement_group g ON g.id = p.group_id;
END$$;

-- Garbage older than `p_grace` in these places, the first ones first, without the rows `p_skip`.
CREATE FUNCTION metadata.garbage_batch(p_groups int[], p_copies int[], p_grace interval, p_skip bigint[], p_limit int)
RETURNS TABLE (
  generation bigint, id bigint, account uuid, object_id uuid, size bigint, md5 bytea, group_id int, copies int
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), g.id, g.account, g.object_id, g.size, g.md5, g.group_id, g.copies
  FROM (VALUES (1)) one LEFT JOIN (
    SELECT b.* FROM unnest(p_groups, p_copies) p (group_id, copies) CROSS JOIN LATERAL (
      SELECT x.* FROM metadata.garbage x
      WHERE x.group_id = p.group_id AND x.copies = p.copies AND x.dropped_at < now() - p_grace AND x.id <> ALL (p_skip)
      ORDER BY x.dropped_at LIMIT p_limit) b
    LIMIT p_limit) g ON true;
END$$;

-- These rows' bytes are gone from the servers that their groups had under these epochs. A row whose group has changed since stays: its
-- bytes may lie on the new servers.
CREATE FUNCTION metadata.collect(p_ids bigint[], p_groups int[], p_epochs bigint[])
RETURNS TABLE (generation bigint, objects bigint, bytes bigint) LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
  b bigint;
BEGIN
  WITH gone AS (
    DELETE FROM metadata.garbage g USING metadata.placement_group p, unnest(p_groups, p_epochs) w (id, epoch)
    WHERE g.id = ANY (p_ids) AND p.id = g.group_id AND w.id = p.id AND w.epoch = p.epoch
    RETURNING g.size)
  SELECT count(*), coalesce(sum(gone.size), 0) INTO n, b FROM gone;
  UPDATE metadata.collected c SET objects = c.objects + n, bytes = c.bytes + b WHERE n > 0;
  RETURN QUERY SELECT fence.require(), n, b;
END$$;

-- Names that shared bytes have lost, from `p_after` on.
CREATE FUNCTION metadata.released_batch(p_after bigint, p_limit int)
RETURNS TABLE (
  generation bigint, id bigint, account uuid, object_id uuid, reference uuid, size bigint, md5 bytea, group_id int, copies int
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), r.id, r.account, r.object_id, r.reference, r.size, r.md5, r.group_id, r.copies
  FROM (VALUES (1)) one LEFT JOIN (
    SELECT * FROM metadata.released x WHERE x.id > p_after ORDER BY x.id LIMIT p_limit) r ON true;
END$$;

-- Home: give up these names, as `release_reference` does one: [{"vnode", "object_id", "reference", "account", "size", "md5", "group_id",
-- "copies"}]. In the order of the objects, so that no two of these wait for each other. Answers how many bytes became garbage by it.
CREATE FUNCTION metadata.release_references(p_names jsonb) RETURNS TABLE (generation bigint, garbage int) LANGUAGE plpgsql AS $$
DECLARE
  item jsonb;
  became int := 0;
  last_one boolean;
BEGIN
  FOR item IN SELECT * FROM jsonb_array_elements(p_names) i ORDER BY i->>'object_id', i->>'reference' LOOP
    SELECT r.garbage INTO last_one
      FROM metadata.release_reference((item->>'vnode')::int, item->>'object_id', (item->>'reference')::uuid, item) r;
    became := became + last_one::int;
  END LOOP;
  RETURN QUERY SELECT fence.require(), became;
END$$;

-- These rows have been to their bytes' home.
CREATE FUNCTION metadata.forget_released(p_ids bigint[]) RETURNS TABLE (generation bigint, names bigint) LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  DELETE FROM metadata.released r WHERE r.id = ANY (p_ids);
  GET DIAGNOSTICS n = ROW_COUNT;
  UPDATE metadata.collected c SET names = c.names + n WHERE n > 0;
  RETURN QUERY SELECT fence.require(), n;
END$$;

-- What waits and what was done, at one moment. `oldest`: how long the first row has waited.
CREATE FUNCTION metadata.garbage_counts()
RETURNS TABLE (
  generation bigint, waiting_objects bigint, waiting_bytes bigint, waiting_names bigint, oldest interval,
  collected_objects bigint, collected_bytes bigint, collected_names bigint
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), g.n, g.bytes, (SELECT count(*) FROM metadata.released), g.oldest, c.objects, c.bytes, c.names
  FROM metadata.collected c CROSS JOIN (
    SELECT count(*) AS n, coalesce(sum(size), 0)::bigint AS bytes, coalesce(now() - min(dropped_at), interval '0') AS oldest
    FROM metadata.garbage) g;
END$$;

-- Of these objects those that an entry of this shard names: no garbage row of such a one is to be believed.
CREATE FUNCTION metadata.named_objects(p_ids uuid[]) RETURNS TABLE (generation bigint, named uuid[]) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), ARRAY(SELECT DISTINCT e.object_id FROM metadata.entry e WHERE e.object_id = ANY (p_ids));
END$$;

-- Of these objects those that this shard knows anything of. p_vnodes: of the object ids.
CREATE FUNCTION metadata.known_objects(p_ids uuid[], p_vnodes int[])
RETURNS TABLE (generation bigint, oldest interval, known uuid[]) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  -- Before the look: what was going on then may have been committed by now, and is seen; what begins later is young.
  age interval := metadata.oldest_transaction();
BEGIN
  RETURN QUERY SELECT fence.leased(), age, ARRAY(
    SELECT e.object_id FROM metadata.entry e WHERE e.object_id = ANY (p_ids)
    UNION SELECT g.object_id FROM metadata.garbage g WHERE g.object_id = ANY (p_ids)
    UNION SELECT l.object_id FROM metadata.released l WHERE l.object_id = ANY (p_ids)
    UNION SELECT r.object_id FROM unnest(p_ids, p_vnodes) w (id, vnode)
          JOIN metadata.reference r ON r.vnode = w.vnode AND r.object_id = w.id);
END$$;

-- References older than this whose entry nobody has looked at yet.
CREATE FUNCTION metadata.unconfirmed_references(p_older interval, p_after timestamptz, p_limit int)
RETURNS TABLE (
  generation bigint, vnode int, object_id uuid, reference uuid, directory text, name text, made_at timestamptz
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), r.vnode, r.object_id, r.reference, r.directory, r.name, r.made_at
  FROM (VALUES (1)) one LEFT JOIN (
    SELECT * FROM metadata.reference x
    WHERE NOT x.confirmed AND x.made_at < now() - p_older AND x.made_at > p_after ORDER BY x.made_at LIMIT p_limit) r ON true;
END$$;

-- Whether the name has that reference, or had it and has not been to the bytes' home yet.
CREATE FUNCTION metadata.holds_reference(p_vnode int, p_directory text, p_name text, p_object_id uuid, p_reference uuid)
RETURNS TABLE (generation bigint, oldest interval, holds boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  age interval := metadata.oldest_transaction();
BEGIN
  RETURN QUERY SELECT fence.leased(), age,
    EXISTS (SELECT FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name
              AND e.object_id = p_object_id AND e.reference = p_reference)
    OR EXISTS (SELECT FROM metadata.released r WHERE r.object_id = p_object_id AND r.reference = p_reference);
END$$;

-- What a look at their entries said: those that hold are confirmed, the others dropped, unless a link has come back to one meanwhile.
-- Nothing becomes garbage by it: whether the bytes have a name that needs no reference only their entries know, so the sweeper of files
-- has to ask. Answers how many were dropped.
CREATE FUNCTION metadata.settle_references(
  p_vnodes int[], p_objects uuid[], p_references uuid[], p_made_at timestamptz[], p_holds boolean[]
) RETURNS TABLE (generation bigint, dropped bigint) LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  UPDATE metadata.reference r SET confirmed = true
    FROM unnest(p_vnodes, p_objects, p_references, p_made_at, p_holds) w (vnode, object_id, reference, made_at, holds)
    WHERE w.holds AND r.vnode = w.vnode AND r.object_id = w.object_id AND r.reference = w.reference AND r.made_at = w.made_at;
  DELETE FROM metadata.reference r
    USING unnest(p_vnodes, p_objects, p_references, p_made_at, p_holds) w (vnode, object_id, reference, made_at, holds)
    WHERE NOT w.holds AND r.vnode = w.vnode AND r.object_id = w.object_id AND r.reference = w.reference AND r.made_at = w.made_at;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN QUERY SELECT fence.require(), n;
END$$;

-- Repair after a lost pool, and of single copies. Who does what when, and why that is safe: docs/metadata.md, section 6.

-- Of an object whose last copy is gone, its object id: no request looks for copies any more. Other bytes of this name are not meant.
ALTER TABLE metadata.entry ADD COLUMN lost uuid;

-- A storage server whose pool an operator declared lost. The plan is made once, on shard 1, and is the same on all of them.
CREATE TABLE metadata.repair (
  id uuid PRIMARY KEY,
  server text NOT NULL,
  declared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  plan jsonb NOT NULL,                             -- [{"id", "epoch", "servers", "places"}], in the order of the ids
  bytes_per_s bigint NOT NULL,
  state text NOT NULL DEFAULT 'listing' CHECK (state IN ('listing', 'copying', 'done')),
  -- The listing is there; names are never empty.
  at_vnode int NOT NULL DEFAULT -1,
  at_directory text COLLATE "C" NOT NULL DEFAULT '',
  at_name text COLLATE "C" NOT NULL DEFAULT '',
  finished_at timestamptz,
  purged boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX repair_open ON metadata.repair (server) WHERE state <> 'done';

CREATE TABLE metadata.repair_group (
  repair uuid NOT NULL,
  group_id int NOT NULL,
  places int[] NOT NULL,                           -- from 0: where its list of servers has another pool than before
  objects bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  copied bigint NOT NULL DEFAULT 0,
  present bigint NOT NULL DEFAULT 0,
  changed bigint NOT NULL DEFAULT 0,
  lost bigint NOT NULL DEFAULT 0,
  done_bytes bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (repair, group_id)
);

-- What referred to the lost pool: a row for each name of an object that had a copy there, and what became of it.
CREATE TABLE metadata.repair_item (
  repair uuid NOT NULL,
  group_id int NOT NULL,
  vnode int NOT NULL,
  directory text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  object_id uuid NOT NULL,
  account uuid NOT NULL,
  size bigint NOT NULL,
  md5 bytea NOT NULL,
  copies int NOT NULL,
  shared boolean NOT NULL,                         -- the bytes have, or had, other names, maybe on other shards
  outcome text CHECK (outcome IN ('copied', 'present', 'changed', 'lost')),
  PRIMARY KEY (repair, group_id, vnode, directory, name, object_id)
);
CREATE INDEX repair_item_left ON metadata.repair_item (repair, group_id, vnode, directory, name) WHERE outcome IS NULL;

-- A single copy that is missing or wrong while another one may be right, on the shard of the object id's own vnode.
CREATE TABLE metadata.mend (
  vnode int NOT NULL,
  object_id uuid NOT NULL,
  server text NOT NULL,
  account uuid NOT NULL,
  size bigint NOT NULL,
  md5 bytea NOT NULL,
  group_id int NOT NULL,                           -- 0: whoever noted it did not know
  why text NOT NULL,
  noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  tries int NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (vnode, object_id, server)
);
CREATE INDEX mend_due ON metadata.mend (due_at);

-- Declare, or bring the declaration to this shard: from here on no put of an old epoch is committed. Answers the open repair of that
-- server, which may be another one. 'moved': a group is not in the epoch that the plan was made from (asked with p_strict only).
CREATE FUNCTION metadata.declare_repair(p_id uuid, p_server text, p_bytes_per_s bigint, p_plan jsonb, p_strict boolean)
RETURNS TABLE (generation bigint, refused text, id uuid, plan jsonb) LANGUAGE plpgsql AS $$
DECLARE
  r metadata.repair;
BEGIN
  PERFORM pg_advisory_xact_lock(9, hashtext(p_server));
  SELECT * INTO r FROM metadata.repair o WHERE o.id = p_id OR (o.server = p_server AND o.state <> 'done')
    ORDER BY o.id = p_id DESC LIMIT 1;
  IF r.id IS NOT NULL THEN
    UPDATE metadata.repair o SET bytes_per_s = p_bytes_per_s WHERE o.id = r.id AND o.bytes_per_s <> p_bytes_per_s;
    RETURN QUERY SELECT fence.require(), NULL::text, r.id, r.plan;
    RETURN;
  END IF;
  -- Puts that checked the old epochs finish first. In the order in which batches of puts take these locks.
  PERFORM pg_advisory_xact_lock(1, o.number)
    FROM (SELECT (w->>'id')::int AS number FROM jsonb_array_elements(p_plan) w ORDER BY 1) o;
  IF p_strict AND EXISTS (
    SELECT FROM jsonb_array_elements(p_plan) w LEFT JOIN metadata.placement_group g ON g.id = (w->>'id')::int
    WHERE g.epoch IS DISTINCT FROM (w->>'epoch')::bigint - 1) THEN
    RETURN QUERY SELECT fence.require(), 'moved', NULL::uuid, NULL::jsonb;
    RETURN;
  END IF;
  INSERT INTO metadata.placement_group AS g (id, epoch, servers)
  SELECT (w->>'id')::int, (w->>'epoch')::bigint, w->'servers' FROM jsonb_array_elements(p_plan) w
  ON CONFLICT ON CONSTRAINT placement_group_pkey
  DO UPDATE SET epoch = excluded.epoch, servers = excluded.servers WHERE g.epoch < excluded.epoch;
  INSERT INTO metadata.repair (id, server, plan, bytes_per_s) VALUES (p_id, p_server, p_plan, p_bytes_per_s);
  INSERT INTO metadata.repair_group (repair, group_id, places)
  SELECT p_id, (w->>'id')::int, ARRAY(SELECT jsonb_array_elements_text(w->'places')::int) FROM jsonb_array_elements(p_plan) w;
  RETURN QUERY SELECT fence.require(), NULL::text, p_id, p_plan;
END$$;

-- All repairs, or the open ones, with what is done of each.
CREATE FUNCTION metadata.repairs(p_open boolean)
RETURNS TABLE (
  generation bigint, id uuid, server text, declared_at timestamptz, bytes_per_s bigint, state text, finished_at timestamptz,
  objects bigint, bytes bigint, copied bigint, present bigint, changed bigint, lost bigint, done_bytes bigint
) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), r.id, r.server, r.declared_at, r.bytes_per_s, r.state, r.finished_at, t.*
  FROM (VALUES (1)) one
  LEFT JOIN metadata.repair r ON NOT p_open OR r.state <> 'done'
  LEFT JOIN LATERAL (
    SELECT sum(objects)::bigint, sum(bytes)::bigint, sum(copied)::bigint, sum(present)::bigint, sum(changed)::bigint, sum(lost)::bigint,
           sum(done_bytes)::bigint
    FROM metadata.repair_group g WHERE g.repair = r.id) t ON true
  ORDER BY r.declared_at, r.id
$$;

CREATE FUNCTION metadata.repair_plan(p_repair uuid) RETURNS TABLE (generation bigint, plan jsonb) LANGUAGE sql VOLATILE AS
$$SELECT fence.leased(), (SELECT r.plan FROM metadata.repair r WHERE r.id = p_repair)$$;

-- One page of the listing: of the next p_limit names, those with a copy in a place that has another pool now. Answers whether more follow.
CREATE FUNCTION metadata.list_repair(p_repair uuid, p_limit int) RETURNS TABLE (generation bigint, more boolean) LANGUAGE plpgsql AS $$
DECLARE
  r metadata.repair;
  seen bigint;
  last_one record;
BEGIN
  SELECT * INTO r FROM metadata.repair o WHERE o.id = p_repair FOR UPDATE;
  IF r.state IS DISTINCT FROM 'listing' THEN
    RETURN QUERY SELECT fence.require(), false;
    RETURN;
  END IF;
  WITH page AS MATERIALIZED (
    SELECT e.* FROM metadata.entry e
    WHERE (e.vnode, e.directory, e.name) > (r.at_vnode, r.at_directory, r.at_name)
    ORDER BY e.vnode, e.directory, e.name LIMIT p_limit
  ), added AS (
    INSERT INTO metadata.repair_item (repair, group_id, vnode, directory, name, object_id, account, size, md5, copies, shared)
    SELECT r.id, p.group_id, p.vnode, p.directory, p.name, p.object_id, p.account, p.size, p.md5, p.copies, p.reference IS NOT NULL
    FROM page p JOIN metadata.repair_group g ON g.repair = r.id AND g.group_id = p.group_id
    WHERE p.kind = 'object' AND p.size > 0 AND p.copies > (SELECT min(place) FROM unnest(g.places) place)
      AND p.lost IS DISTINCT FROM p.object_id
    ON CONFLICT DO NOTHING
    RETURNING group_id, size
  ), counted AS (
    UPDATE metadata.repair_group g SET objects = g.objects + n.objects, bytes = g.bytes + n.bytes
    FROM (SELECT a.group_id, count(*) AS objects, sum(a.size)::bigint AS bytes FROM added a GROUP BY a.group_id) n
    WHERE g.repair = r.id AND g.group_id = n.group_id
  )
  SELECT p.vnode, p.directory, p.name, (SELECT count(*) FROM page) AS seen INTO last_one
  FROM page p ORDER BY p.vnode DESC, p.directory DESC, p.name DESC LIMIT 1;
  seen := coalesce(last_one.seen, 0);
  IF seen < p_limit THEN
    UPDATE metadata.repair o SET state = 'copying' WHERE o.id = r.id;
  ELSE
    UPDATE metadata.repair o SET at_vnode = last_one.vnode, at_directory = last_one.directory, at_name = last_one.name WHERE o.id = r.id;
  END IF;
  RETURN QUERY SELECT fence.require(), seen = p_limit;
END$$;

-- Groups of which something is left.
CREATE FUNCTION metadata.repair_groups(p_repair uuid)
RETURNS TABLE (generation bigint, group_id int, places int[], servers jsonb) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), g.group_id, g.places, p.servers
  FROM (VALUES (1)) one LEFT JOIN (
    metadata.repair_group g JOIN metadata.placement_group p ON p.id = g.group_id
  ) ON g.repair = p_repair AND g.copied + g.present + g.changed + g.lost < g.objects
  ORDER BY g.group_id
$$;

-- The next things to do of a group: objects of at most p_copies copies, after a name. `current`: the name still has these bytes.
CREATE FUNCTION metadata.repair_items(
  p_repair uuid, p_group int, p_copies int, p_vnode int, p_directory text, p_name text, p_limit int
) RETURNS TABLE (
  generation bigint, vnode int, directory text, name text, object_id uuid, account uuid, size bigint, md5 bytea, copies int, current boolean
) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), i.vnode, i.directory, i.name, i.object_id, i.account, i.size, i.md5, i.copies, e.name IS NOT NULL
  FROM (VALUES (1)) one
  LEFT JOIN LATERAL (
    SELECT * FROM metadata.repair_item o
    WHERE o.repair = p_repair AND o.group_id = p_group AND o.outcome IS NULL AND o.copies <= p_copies
      AND (o.vnode, o.directory, o.name) > (p_vnode, p_directory, p_name)
    ORDER BY o.vnode, o.directory, o.name LIMIT p_limit) i ON true
  LEFT JOIN metadata.entry e ON e.vnode = i.vnode AND e.directory = i.directory AND e.name = i.name AND e.object_id = i.object_id
  ORDER BY i.vnode, i.directory, i.name
$$;

-- What became of things: [{"vnode", "directory", "name", "object_id", "outcome"}]. Lost is only what still has that name: it says so from
-- now on. May be repeated.
CREATE FUNCTION metadata.settle_items(p_repair uuid, p_group int, p_items jsonb)
RETURNS TABLE (generation bigint) LANGUAGE plpgsql AS $$
BEGIN
  UPDATE metadata.entry e SET lost = x.object_id
  FROM jsonb_to_recordset(p_items) AS x (vnode int, directory text, name text, object_id uuid, outcome text)
  WHERE x.outcome = 'lost' AND e.vnode = x.vnode AND e.directory = x.directory AND e.name = x.name AND e.object_id = x.object_id;
  WITH told AS (
    SELECT x.vnode, x.directory, x.name, x.object_id,
           CASE WHEN x.outcome = 'lost' AND NOT EXISTS (
             SELECT FROM metadata.entry e
             WHERE e.vnode = x.vnode AND e.directory = x.directory AND e.name = x.name AND e.object_id = x.object_id)
           THEN 'changed' ELSE x.outcome END AS outcome
    FROM jsonb_to_recordset(p_items) AS x (vnode int, directory text, name text, object_id uuid, outcome text)
  ), settled AS (
    UPDATE metadata.repair_item i SET outcome = t.outcome FROM told t
    WHERE i.repair = p_repair AND i.group_id = p_group AND i.vnode = t.vnode AND i.directory = t.directory AND i.name = t.name
      AND i.object_id = t.object_id AND i.outcome IS NULL
    RETURNING i.outcome, i.size
  ), n AS (
    SELECT count(*) FILTER (WHERE outcome = 'copied') AS copied, count(*) FILTER (WHERE outcome = 'present') AS present,
           count(*) FILTER (WHERE outcome = 'changed') AS changed, count(*) FILTER (WHERE outcome = 'lost') AS lost,
           coalesce(sum(size), 0)::bigint AS bytes
    FROM settled
  )
  UPDATE metadata.repair_group g
  SET copied = g.copied + n.copied, present = g.present + n.present, changed = g.changed + n.changed, lost = g.lost + n.lost,
      done_bytes = g.done_bytes + n.bytes
  FROM n WHERE g.repair = p_repair AND g.group_id = p_group;
  RETURN QUERY SELECT fence.require();
END$$;

-- The end, once nothing is left and every shard has listed: names that linked bytes got meanwhile are listed too, because the name under
-- which a listing would have met them may have gone before it came there. Finished only if that adds nothing.
CREATE FUNCTION metadata.finish_repair(p_repair uuid) RETURNS TABLE (generation bigint, finished boolean) LANGUAGE plpgsql AS $$
DECLARE
  ended boolean := false;
BEGIN
  PERFORM FROM metadata.repair o WHERE o.id = p_repair AND o.state = 'copying' FOR UPDATE;
  IF FOUND THEN
    WITH added AS (
      INSERT INTO metadata.repair_item (repair, group_id, vnode, directory, name, object_id, account, size, md5, copies, shared)
      SELECT p_repair, e.group_id, e.vnode, e.directory, e.name, e.object_id, e.account, e.size, e.md5, e.copies, true
      FROM metadata.entry e JOIN metadata.repair_group g ON g.repair = p_repair AND g.group_id = e.group_id
      WHERE e.reference IS NOT NULL AND e.kind = 'object' AND e.size > 0
        AND e.copies > (SELECT min(place) FROM unnest(g.places) place) AND e.lost IS DISTINCT FROM e.object_id
      ON CONFLICT DO NOTHING
      RETURNING group_id, size
    )
    UPDATE metadata.repair_group g SET objects = g.objects + n.objects, bytes = g.bytes + n.bytes
    FROM (SELECT a.group_id, count(*) AS objects, sum(a.size)::bigint AS bytes FROM added a GROUP BY a.group_id) n
    WHERE g.repair = p_repair AND g.group_id = n.group_id;
    UPDATE metadata.repair o SET state = 'done', finished_at = clock_timestamp()
      WHERE o.id = p_repair AND NOT EXISTS (SELECT FROM metadata.repair_item i WHERE i.repair = p_repair AND i.outcome IS NULL);
    ended := FOUND;
  END IF;
  RETURN QUERY SELECT fence.require(), ended;
END$$;

-- Of bytes that have, or had, several names: what became of each name.
CREATE FUNCTION metadata.shared_items(p_repair uuid)
RETURNS TABLE (generation bigint, object_id uuid, outcome text, size bigint) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), i.object_id, i.outcome, i.size
  FROM (VALUES (1)) one LEFT JOIN metadata.repair_item i ON i.repair = p_repair AND i.shared
$$;

-- What was lost, by name, after a name.
CREATE FUNCTION metadata.lost_names(p_repair uuid, p_vnode int, p_directory text, p_name text, p_limit int)
RETURNS TABLE (generation bigint, vnode int, directory text, name text, object_id uuid, size bigint) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), i.* FROM (VALUES (1)) one LEFT JOIN LATERAL (
    SELECT o.vnode, o.directory, o.name, o.object_id, o.size FROM metadata.repair_item o
    WHERE o.repair = p_repair AND o.outcome = 'lost' AND (o.vnode, o.directory, o.name) > (p_vnode, p_directory, p_name)
    ORDER BY o.vnode, o.directory, o.name LIMIT p_limit) i ON true
$$;

-- Drop what a finished repair need not know any more, some rows at a time: not what was lost, nor what has to be counted once.
CREATE FUNCTION metadata.purge_repairs(p_limit int) RETURNS TABLE (generation bigint, purged bigint) LANGUAGE plpgsql AS $$
DECLARE
  r uuid;
  n bigint := 0;
BEGIN
  SELECT o.id INTO r FROM metadata.repair o WHERE o.state = 'done' AND NOT o.purged LIMIT 1;
  IF r IS NOT NULL THEN
    DELETE FROM metadata.repair_item WHERE ctid = ANY (ARRAY(
      SELECT i.ctid FROM metadata.repair_item i WHERE i.repair = r AND i.outcome <> 'lost' AND NOT i.shared LIMIT p_limit));
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n < p_limit THEN
      UPDATE metadata.repair o SET purged = true WHERE o.id = r;
    END IF;
  END IF;
  RETURN QUERY SELECT fence.require(), n;
END$$;

-- Some objects that should have a copy in these places: [{"id", "places"}]. Whoever comes first in the table.
CREATE FUNCTION metadata.sample_copies(p_groups jsonb, p_limit int)
RETURNS TABLE (generation bigint, object_id uuid, account uuid, size bigint, md5 bytea) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), s.* FROM (VALUES (1)) one LEFT JOIN LATERAL (
    SELECT e.object_id, e.account, e.size, e.md5
    FROM metadata.entry e JOIN jsonb_to_recordset(p_groups) AS w (id int, place int) ON w.id = e.group_id
    WHERE e.kind = 'object' AND e.size > 0 AND e.copies > w.place AND e.lost IS DISTINCT FROM e.object_id
    LIMIT p_limit) s ON true
$$;

-- Single copies to be looked after: [{"vnode", "object_id", "server", "account", "size", "md5", "group_id", "why"}]. Those of groups that
-- are being repaired anyway are not noted.
CREATE FUNCTION metadata.note_mends(p_mends jsonb) RETURNS TABLE (generation bigint, noted bigint) LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  INSERT INTO metadata.mend (vnode, object_id, server, account, size, md5, group_id, why)
  SELECT m.vnode, m.object_id, m.server, m.account, m.size, m.md5, m.group_id, m.why
  FROM jsonb_populate_recordset(NULL::metadata.mend, p_mends) m
  WHERE NOT EXISTS (
    SELECT FROM metadata.repair r JOIN metadata.repair_group g ON g.repair = r.id
    WHERE r.state <> 'done' AND g.group_id = m.group_id)
  ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN QUERY SELECT fence.require(), n;
END$$;

CREATE FUNCTION metadata.due_mends(p_limit int)
RETURNS TABLE (
  generation bigint, vnode int, object_id uuid, server text, account uuid, size bigint, md5 bytea, group_id int, why text, tries int
) LANGUAGE sql VOLATILE AS $$
  SELECT fence.leased(), m.* FROM (VALUES (1)) one LEFT JOIN LATERAL (
    SELECT d.vnode, d.object_id, d.server, d.account, d.size, d.md5, d.group_id, d.why, d.tries FROM metadata.mend d
    WHERE d.due_at <= clock_timestamp() ORDER BY d.due_at LIMIT p_limit) m ON true
$$;

-- These are done with (or there is nothing to bring back); those are tried again later, each time after twice as long.
CREATE FUNCTION metadata.settle_mends(p_done jsonb, p_failed jsonb) RETURNS TABLE (generation bigint) LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM metadata.mend m USING jsonb_populate_recordset(NULL::metadata.mend, p_done) d
    WHERE m.vnode = d.vnode AND m.object_id = d.object_id AND m.server = d.server;
  UPDATE metadata.mend m
    SET tries = m.tries + 1, due_at = clock_timestamp() + least(interval '5 s' * 2 ^ least(m.tries, 20), interval '1 hour')
    FROM jsonb_populate_recordset(NULL::metadata.mend, p_failed) f
    WHERE m.vnode = f.vnode AND m.object_id = f.object_id AND m.server = f.server;
  RETURN QUERY SELECT fence.require();
END$$;

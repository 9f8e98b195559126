-- The functions on the path of every request, in plpgsql: it keeps its plans for the session, while a function in SQL that the planner
-- can't inline (volatile and set-returning, with SET, or with an aggregate) is parsed and planned anew by each call. The statements are
-- the same, and so is the order of snapshot and check: a statement's snapshot is taken before a lease that is read within it.

-- The check of readers: the generation, or NULL when there is no lease now. Clock and row are read when it is evaluated.
CREATE OR REPLACE FUNCTION fence.leased() RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = fence, pg_temp AS $$
BEGIN
  RETURN (SELECT generation FROM fence.lease WHERE until > clock_timestamp() AND boot = pg_postmaster_start_time());
END$$;

-- The check of writers, last in each function: each inner statement has a snapshot of its own.
CREATE OR REPLACE FUNCTION fence.require() RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = fence, pg_temp AS $$
DECLARE
  g bigint;
BEGIN
  SELECT generation INTO g FROM fence.lease WHERE until > clock_timestamp() AND boot = pg_postmaster_start_time();
  IF g IS NULL THEN
    RAISE EXCEPTION 'not leased' USING ERRCODE = 'FZ001';
  END IF;
  RETURN g;
END$$;

-- One round trip: the entry (if any), whether the directory is active, and the generation under which this holds.
CREATE OR REPLACE FUNCTION metadata.lookup(p_vnode int, p_directory text, p_name text)
RETURNS TABLE (generation bigint, directory_active boolean, entry jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  -- One statement: what it reads is at least as old as its look at the lease.
  RETURN QUERY SELECT fence.leased(),
    EXISTS (SELECT FROM metadata.directory d WHERE d.vnode = p_vnode AND d.path = p_directory AND d.state = 'active'),
    (SELECT to_jsonb(e) FROM metadata.entry e WHERE e.vnode = p_vnode AND e.directory = p_directory AND e.name = p_name);
END$$;

CREATE OR REPLACE FUNCTION metadata.entries_of(p_vnode int, p_path text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT coalesce(sum(delta), 0)::bigint FROM metadata.directory_count WHERE vnode = p_vnode AND path = p_path);
END$$;

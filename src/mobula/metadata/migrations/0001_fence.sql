-- The replicated lease: a server answers reads and accepts writes only while its guard has granted it one.
-- Theory: docs/metadata.md. Every other schema's functions stand on fence.require() and fence.leased().
CREATE SCHEMA fence;

-- The synchronous commit behind a G1 grant.
CREATE TABLE fence.heartbeat (
  id int PRIMARY KEY CHECK (id = 1),
  n bigint NOT NULL,
  node text NOT NULL
) WITH (fillfactor = 10);
INSERT INTO fence.heartbeat VALUES (1, 0, '');

-- UNLOGGED: not replicated, empty after crash recovery, unreadable on a standby. It survives a clean restart, hence `boot`.
CREATE UNLOGGED TABLE fence.lease (
  id int PRIMARY KEY CHECK (id = 1),
  until timestamptz NOT NULL,
  generation bigint NOT NULL,
  boot timestamptz NOT NULL,
  clean boolean NOT NULL,
  revoked boolean NOT NULL DEFAULT false
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- PostgreSQL's timeline, which each promotion moves on.
CREATE FUNCTION fence.timeline() RETURNS bigint LANGUAGE sql STABLE AS
$$SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint$$;

-- First half of G1: its COMMIT waits for the synchronous standby. Call it in autocommit.
CREATE FUNCTION fence.beat(node text, OUT lsn pg_lsn, OUT boot timestamptz, OUT generation bigint) LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('synchronous_commit') IN ('off', 'local') OR current_setting('synchronous_standby_names') = '' THEN
    RAISE EXCEPTION 'synchronous replication is not in force' USING ERRCODE = 'FZ002';
  END IF;
  UPDATE fence.heartbeat h SET n = h.n + 1, node = beat.node WHERE id = 1;
  lsn := pg_current_wal_insert_lsn();
  boot := pg_postmaster_start_time();
  generation := fence.timeline();
END$$;

-- Second half of G1: was that position really flushed by a synchronous standby? A cancelled commit wait "succeeds" too.
CREATE FUNCTION fence.replicated(l pg_lsn) RETURNS boolean LANGUAGE sql AS
$$SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND flush_lsn >= l)$$;

-- Run with synchronous_commit=off: it must never wait for the standby.
CREATE FUNCTION fence.grant_lease(p_until timestamptz, p_boot timestamptz, p_generation bigint, p_clean boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF pg_is_in_recovery() OR p_boot <> pg_postmaster_start_time() OR p_generation <> fence.timeline() THEN
    RETURN false;
  END IF;
  INSERT INTO fence.lease AS l VALUES (1, p_until, p_generation, p_boot, p_clean)
  ON CONFLICT (id) DO UPDATE
    SET until = excluded.until, generation = excluded.generation, boot = excluded.boot, revoked = false,
        clean = excluded.clean OR (l.clean AND l.boot = excluded.boot)
    WHERE NOT (l.revoked AND l.boot = excluded.boot);
  RETURN FOUND;
END$$;

-- Before a fast shutdown: no reader may see the cancelled commit waits that it publishes.
CREATE FUNCTION fence.revoke() RETURNS void LANGUAGE sql AS
$$UPDATE fence.lease SET until = '-infinity', revoked = true$$;

-- The check of readers: the generation, or NULL when there is no lease now. Clock and row are read when it is evaluated.
CREATE FUNCTION fence.leased() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = fence, pg_temp AS
$$SELECT generation FROM fence.lease WHERE until > clock_timestamp() AND boot = pg_postmaster_start_time()$$;

-- The check of writers, last in each function: each inner statement has a snapshot of its own.
CREATE FUNCTION fence.require() RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = fence, pg_temp AS $$
DECLARE
  g bigint := fence.leased();
BEGIN
  IF g IS NULL THEN
    RAISE EXCEPTION 'not leased' USING ERRCODE = 'FZ001';
  END IF;
  RETURN g;
END$$;

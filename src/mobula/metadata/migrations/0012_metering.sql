-- What accounts use, hour by hour: what they store, ask for and compute on this shard. Why so: docs/decisions/0014.
-- Hours are numbered from the epoch on. Whoever does something for an account appends a row here in the same transaction; a worker folds
-- such rows into sums, so that nobody waits for anybody's row. An account is text, as a path says it.
CREATE SCHEMA metering;

CREATE FUNCTION metering.this_hour() RETURNS int LANGUAGE sql VOLATILE AS
$$SELECT floor(extract(epoch FROM clock_timestamp()) / 3600)::int$$;

-- Hours up to this one can't be told apart any more. One row.
CREATE TABLE metering.closed (hour int NOT NULL);
INSERT INTO metering.closed SELECT metering.this_hour() - 1;

-- Every account of which there is anything below.
CREATE TABLE metering.account (account text COLLATE "C" PRIMARY KEY);

-- Changes of what is stored. What there is at the end of an hour is the sum of all up to it; hour 0 has those of all closed hours.
CREATE TABLE metering.storage (
  account text COLLATE "C" NOT NULL,
  namespace text COLLATE "C" NOT NULL,
  hour int NOT NULL,
  directories bigint NOT NULL,
  objects bigint NOT NULL,
  bytes bigint NOT NULL,
  stored_bytes bigint NOT NULL,                    -- bytes x copies
  PRIMARY KEY (account, namespace, hour)
);
CREATE INDEX storage_hour ON metering.storage (hour) WHERE hour > 0;
CREATE TABLE metering.storage_delta (LIKE metering.storage);

-- What one webapi process has counted in an hour, so far: absolute, so that saying it twice does no harm.
CREATE TABLE metering.requests (
  account text COLLATE "C" NOT NULL,
  hour int NOT NULL,
  process uuid NOT NULL,
  total bigint NOT NULL,
  methods jsonb NOT NULL,                          -- {"GET": 3}
  bytes_in bigint NOT NULL,
  bytes_out bigint NOT NULL,
  PRIMARY KEY (account, hour, process)
);
CREATE INDEX requests_hour ON metering.requests (hour);

-- Tasks whose end was committed in that hour.
CREATE TABLE metering.compute (
  account text COLLATE "C" NOT NULL,
  hour int NOT NULL,
  tasks bigint NOT NULL,
  ms bigint NOT NULL,                              -- how long their commands ran
  mb_ms bigint NOT NULL,                           -- that, times the memory that they were given
  PRIMARY KEY (account, hour)
);
CREATE INDEX compute_hour ON metering.compute (hour);
CREATE TABLE metering.compute_delta (LIKE metering.compute);

-- A row-level trigger, as every statement that writes entries writes one; the repair's marks don't meet the condition below.
CREATE FUNCTION metering.count_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  path text := coalesce(NEW.directory, OLD.directory) || '/' || coalesce(NEW.name, OLD.name);
BEGIN
  INSERT INTO metering.storage_delta (account, namespace, hour, directories, objects, bytes, stored_bytes) VALUES (
    split_part(path, '/', 2), split_part(path, '/', 3), metering.this_hour(),
    coalesce((NEW.kind = 'directory')::int, 0) - coalesce((OLD.kind = 'directory')::int, 0),
    coalesce((NEW.kind = 'object')::int, 0) - coalesce((OLD.kind = 'object')::int, 0),
    coalesce(NEW.size, 0) - coalesce(OLD.size, 0),
    coalesce(NEW.size * NEW.copies, 0) - coalesce(OLD.size * OLD.copies, 0));
  RETURN NULL;
END$$;

CREATE TRIGGER metered AFTER INSERT OR DELETE ON metadata.entry FOR EACH ROW EXECUTE FUNCTION metering.count_entry();
CREATE TRIGGER metered_change AFTER UPDATE ON metadata.entry FOR EACH ROW
  WHEN ((OLD.kind, OLD.size, OLD.copies) IS DISTINCT FROM (NEW.kind, NEW.size, NEW.copies)) EXECUTE FUNCTION metering.count_entry();

-- What was there before, once.
INSERT INTO metering.storage (account, namespace, hour, directories, objects, bytes, stored_bytes)
SELECT split_part(e.directory || '/' || e.name, '/', 2), split_part(e.directory || '/' || e.name, '/', 3), 0,
       count(*) FILTER (WHERE e.kind = 'directory'), count(*) FILTER (WHERE e.kind = 'object'), sum(e.size), sum(e.size * e.copies)
FROM metadata.entry e GROUP BY 1, 2;
INSERT INTO metering.account SELECT DISTINCT s.account FROM metering.storage s;

-- Sums instead of single rows, so many of each kind at most; answers how many there were. One at a time.
CREATE FUNCTION metering.fold(p_limit int) RETURNS TABLE (generation bigint, folded bigint) LANGUAGE plpgsql AS $$
DECLARE
  stored bigint;
  computed bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(20, 0);
  WITH gone AS (
    DELETE FROM metering.storage_delta d WHERE d.ctid = ANY (ARRAY(SELECT x.ctid FROM metering.storage_delta x LIMIT p_limit)) RETURNING d.*
  ), summed AS (
    INSERT INTO metering.storage AS s (account, namespace, hour, directories, objects, bytes, stored_bytes)
    SELECT g.account, g.namespace, g.hour, sum(g.directories), sum(g.objects), sum(g.bytes), sum(g.stored_bytes)
    FROM gone g GROUP BY g.account, g.namespace, g.hour
    ON CONFLICT (account, namespace, hour) DO UPDATE SET directories = s.directories + excluded.directories,
      objects = s.objects + excluded.objects, bytes = s.bytes + excluded.bytes, stored_bytes = s.stored_bytes + excluded.stored_bytes
  ), known AS (INSERT INTO metering.account SELECT DISTINCT g.account FROM gone g ON CONFLICT DO NOTHING)
  SELECT count(*) INTO stored FROM gone;
  WITH gone AS (
    DELETE FROM metering.compute_delta d WHERE d.ctid = ANY (ARRAY(SELECT x.ctid FROM metering.compute_delta x LIMIT p_limit)) RETURNING d.*
  ), summed AS (
    INSERT INTO metering.compute AS c (account, hour, tasks, ms, mb_ms)
    SELECT g.account, g.hour, sum(g.tasks), sum(g.ms), sum(g.mb_ms) FROM gone g GROUP BY g.account, g.hour
    ON CONFLICT (account, hour) DO UPDATE SET tasks = c.tasks + excluded.tasks, ms = c.ms + excluded.ms, mb_ms = c.mb_ms + excluded.mb_ms
  ), known AS (INSERT INTO metering.account SELECT DISTINCT g.account FROM gone g ON CONFLICT DO NOTHING)
  SELECT count(*) INTO computed FROM gone;
  RETURN QUERY SELECT fence.require(), stored + computed;
END$$;

-- Nobody asks for hours up to this one any more: what was stored becomes one sum, the rest goes. So many rows of each kind at most.
CREATE FUNCTION metering.close_hours(p_upto int, p_limit int) RETURNS TABLE (generation bigint, dropped bigint) LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
  total bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(20, 0);
  UPDATE metering.closed c SET hour = p_upto WHERE c.hour < p_upto;
  WITH gone AS (
    DELETE FROM metering.storage s
    WHERE s.ctid = ANY (ARRAY(SELECT x.ctid FROM metering.storage x WHERE x.hour > 0 AND x.hour <= p_upto LIMIT p_limit)) RETURNING s.*
  ), summed AS (
    INSERT INTO metering.storage AS s (account, namespace, hour, directories, objects, bytes, stored_bytes)
    SELECT g.account, g.namespace, 0, sum(g.directories), sum(g.objects), sum(g.bytes), sum(g.stored_bytes)
    FROM gone g GROUP BY g.account, g.namespace
    ON CONFLICT (account, namespace, hour) DO UPDATE SET directories = s.directories + excluded.directories,
      objects = s.objects + excluded.objects, bytes = s.bytes + excluded.bytes, stored_bytes = s.stored_bytes + excluded.stored_bytes)
  SELECT count(*) INTO total FROM gone;
  DELETE FROM metering.requests r WHERE r.ctid = ANY (ARRAY(SELECT x.ctid FROM metering.requests x WHERE x.hour <= p_upto LIMIT p_limit));
  GET DIAGNOSTICS n = ROW_COUNT;
  total := total + n;
  DELETE FROM metering.compute c WHERE c.ctid = ANY (ARRAY(SELECT x.ctid FROM metering.compute x WHERE x.hour <= p_upto LIMIT p_limit));
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN QUERY SELECT fence.require(), total + n;
END$$;

-- What a webapi process has counted: [{"account", "hour", "total", "methods", "bytes_in", "bytes_out"}]. What comes late is not more.
CREATE FUNCTION metering.note_requests(p_process uuid, p_counts jsonb) RETURNS TABLE (generation bigint) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO metering.account
  SELECT DISTINCT c->>'account' FROM jsonb_array_elements(p_counts) c ON CONFLICT DO NOTHING;
  INSERT INTO metering.requests AS r (account, hour, process, total, methods, bytes_in, bytes_out)
  SELECT c.account, c.hour, p_process, c.total, c.methods, c.bytes_in, c.bytes_out
  FROM jsonb_populate_recordset(NULL::metering.requests, p_counts) c
  ON CONFLICT (account, hour, process) DO UPDATE
    SET total = excluded.total, methods = excluded.methods, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out
    WHERE r.total < excluded.total;
  RETURN QUERY SELECT fence.require();
END$$;

CREATE FUNCTION metering.closed_hour() RETURNS TABLE (generation bigint, hour int) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), c.hour FROM metering.closed c;
END$$;

-- What accounts have used in an hour that is not closed, the next so many accounts after `p_after`; what is not folded yet is not in it.
CREATE FUNCTION metering.usage(p_hour int, p_after text, p_limit int)
RETURNS TABLE (generation bigint, account text, storage jsonb, requests jsonb, compute jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), a.account,
    (SELECT jsonb_object_agg(s.namespace, jsonb_build_object(
       'directories', s.directories, 'objects', s.objects, 'bytes', s.bytes, 'storedBytes', s.stored_bytes))
     FROM (SELECT x.namespace, sum(x.directories) AS directories, sum(x.objects) AS objects, sum(x.bytes) AS bytes,
                  sum(x.stored_bytes) AS stored_bytes
           FROM metering.storage x WHERE x.account = a.account AND x.hour <= p_hour
           GROUP BY x.namespace HAVING sum(x.directories) <> 0 OR sum(x.objects) <> 0) s),
    (SELECT jsonb_build_object(
       'type', (SELECT jsonb_object_agg(t.method, t.number) FROM (
          SELECT m.key AS method, sum(m.value::bigint) AS number FROM metering.requests x, jsonb_each_text(x.methods) m
          WHERE x.account = a.account AND x.hour = p_hour GROUP BY m.key) t),
       'bandwidth', jsonb_build_object('in', sum(r.bytes_in), 'out', sum(r.bytes_out)))
     FROM metering.requests r WHERE r.account = a.account AND r.hour = p_hour HAVING count(*) > 0),
    (SELECT jsonb_build_object('tasks', c.tasks, 'milliseconds', c.ms, 'megabyteMilliseconds', c.mb_ms)
     FROM metering.compute c WHERE c.account = a.account AND c.hour = p_hour)
  FROM (VALUES (1)) one LEFT JOIN (
    SELECT x.account FROM metering.account x WHERE x.account > p_after COLLATE "C" ORDER BY x.account LIMIT p_limit) a ON true
  ORDER BY a.account;
END$$;

-- On shard 1: logins of these accounts.
CREATE FUNCTION metering.logins(p_accounts uuid[]) RETURNS TABLE (generation bigint, account uuid, login text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), a.uuid, a.login FROM (VALUES (1)) one LEFT JOIN directory.account a ON a.uuid = ANY (p_accounts);
END$$;

-- Results as before, and those that count are metered with them: [{..., "ms", "memory_mb"}]; an agent of an older release doesn't say these.
ALTER FUNCTION jobs.commit_results(bigint, jsonb) RENAME TO decide_results;

CREATE FUNCTION jobs.commit_results(p_epoch bigint, p_results jsonb)
RETURNS TABLE (generation bigint, deposed boolean, counted int[]) LANGUAGE plpgsql AS $$
DECLARE
  said record;
BEGIN
  SELECT d.deposed, d.counted INTO said FROM jobs.decide_results(p_epoch, p_results) d;
  INSERT INTO metering.compute_delta (account, hour, tasks, ms, mb_ms)
  SELECT j.account::text, metering.this_hour(), count(*), sum(u.ms), sum(u.ms * u.memory_mb)
  FROM jsonb_array_elements(p_results) WITH ORDINALITY AS r (result, place)
  JOIN jobs.job j ON j.id = (r.result->>'job')::uuid,
  LATERAL (SELECT coalesce((r.result->>'ms')::bigint, 0) AS ms, coalesce((r.result->>'memory_mb')::bigint, 0) AS memory_mb) u
  WHERE r.place = ANY (said.counted) GROUP BY j.account;
  RETURN QUERY SELECT fence.require(), said.deposed, said.counted;
END$$;

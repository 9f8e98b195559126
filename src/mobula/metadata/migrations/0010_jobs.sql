-- Jobs: all rows of one lie on the shard of its id. Who moves what, and why each step may be done twice: docs/decisions/0011.
CREATE SCHEMA jobs;

-- The supervisor that counts: each that takes over makes it one more.
CREATE TABLE jobs.epoch (id int PRIMARY KEY CHECK (id = 1), epoch bigint NOT NULL);
INSERT INTO jobs.epoch VALUES (1, 0);

CREATE TABLE jobs.job (
  id uuid PRIMARY KEY,
  account uuid NOT NULL,
  login text NOT NULL,
  user_id uuid,
  name text NOT NULL,                              -- the document's
  document bytea NOT NULL,
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done')),
  cancelled boolean NOT NULL DEFAULT false,
  input_ended boolean NOT NULL DEFAULT false,
  sizes bigint[] NOT NULL,                         -- of each stage: its items
  cursors bigint[] NOT NULL,                       -- of each phase: items of its stage that were dispatched
  open int[] NOT NULL,                             -- of each phase: tasks that are not done
  reducers int[] NOT NULL,                         -- of each phase; 0: a map
  tasks bigint NOT NULL DEFAULT 0,
  tasks_done bigint NOT NULL DEFAULT 0,
  errors bigint NOT NULL DEFAULT 0,
  retries bigint NOT NULL DEFAULT 0,
  last_task bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  done_at timestamptz
);
CREATE INDEX job_unfinished ON jobs.job (created_at) WHERE state <> 'done';
CREATE INDEX job_account ON jobs.job (account, created_at);

-- Stage 0: inputs. Stage p: what phase p-1 put out. The last one: outputs.
CREATE TABLE jobs.item (
  job uuid NOT NULL,
  stage int NOT NULL,
  number bigint NOT NULL,
  name text NOT NULL,
  first_input text NOT NULL DEFAULT '',
  reducer int,
  PRIMARY KEY (job, stage, number)
);

CREATE TABLE jobs.task (
  job uuid NOT NULL,
  number bigint NOT NULL,
  phase int NOT NULL,
  name text NOT NULL DEFAULT '',
  first_input text NOT NULL DEFAULT '',
  reducer int,
  account uuid,
  object_id uuid,
  size bigint,
  md5 bytea,
  group_id int,
  copies int,
  attempt int NOT NULL DEFAULT 0,
  agent text NOT NULL DEFAULT '',
  done boolean NOT NULL DEFAULT false,
  PRIMARY KEY (job, number)
);
CREATE INDEX task_open ON jobs.task (job, number) WHERE NOT done;

-- What reducers get, in the order of the items.
CREATE TABLE jobs.feed (
  job uuid NOT NULL,
  phase int NOT NULL,
  reducer int NOT NULL,
  number bigint NOT NULL,
  name text NOT NULL,
  account uuid,
  object_id uuid,
  size bigint,
  md5 bytea,
  group_id int,
  copies int,
  PRIMARY KEY (job, phase, reducer, number)
);

CREATE TABLE jobs.error (
  job uuid NOT NULL,
  number bigint NOT NULL,
  phase int NOT NULL,
  code text NOT NULL,
  message text NOT NULL,
  name text NOT NULL,
  first_input text NOT NULL,
  stderr text NOT NULL,
  core text NOT NULL,
  PRIMARY KEY (job, number)
);

-- What clients do.

CREATE FUNCTION jobs.create_job(
  p_id uuid, p_account uuid, p_login text, p_user uuid, p_name text, p_document bytea, p_reducers int[]
) RETURNS TABLE (generation bigint) LANGUAGE plpgsql AS $$
DECLARE
  phases int := cardinality(p_reducers);
BEGIN
  INSERT INTO jobs.job (id, account, login, user_id, name, document, sizes, cursors, open, reducers)
  VALUES (p_id, p_account, p_login, p_user, p_name, p_document,
          array_fill(0::bigint, ARRAY[phases + 1]), array_fill(0::bigint, ARRAY[phases]), array_fill(0, ARRAY[phases]), p_reducers)
  ON CONFLICT DO NOTHING;
  RETURN QUERY SELECT fence.require();
END$$;

-- The row, locked: whoever numbers items does it here, one after the other, so that a later number never comes before an earlier one.
CREATE FUNCTION jobs.held(p_job uuid) RETURNS jobs.job LANGUAGE sql AS $$SELECT * FROM jobs.job WHERE id = p_job FOR UPDATE$$;

-- What stops a client, as a word.
CREATE FUNCTION jobs.refusal(j jobs.job, p_ended_too boolean) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN j.id IS NULL THEN 'not_found'
    WHEN j.state = 'done' THEN 'done'
    WHEN j.cancelled THEN 'cancelled'
    WHEN p_ended_too AND j.input_ended THEN 'inputDone'
  END
$$;

CREATE FUNCTION jobs.add_inputs(p_job uuid, p_names text[]) RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  j jobs.job := jobs.held(p_job);
  why text := jobs.refusal(j, true);
BEGIN
  IF why IS NULL THEN
    INSERT INTO jobs.item (job, stage, number, name)
    SELECT p_job, 0, j.sizes[1] + n.number, n.name FROM unnest(p_names) WITH ORDINALITY AS n (name, number);
    UPDATE jobs.job SET sizes[1] = j.sizes[1] + cardinality(p_names) WHERE id = p_job;
  END IF;
  RETURN QUERY SELECT fence.require(), why;
END$$;

CREATE FUNCTION jobs.end_input(p_job uuid, p_cancel boolean) RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  j jobs.job := jobs.held(p_job);
  why text := jobs.refusal(j, false);
BEGIN
  IF why IS NULL THEN
    UPDATE jobs.job SET input_ended = true, cancelled = p_cancel WHERE id = p_job;
  END IF;
  RETURN QUERY SELECT fence.require(), why;
END$$;

CREATE FUNCTION jobs.newest_names(p_job uuid, p_stage int, p_limit int)
RETURNS TABLE (generation bigint, names text[]) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), (SELECT coalesce(array_agg(i.name ORDER BY i.number), '{}') FROM (
    SELECT o.number, o.name FROM jobs.item o WHERE o.job = p_job AND o.stage = p_stage ORDER BY o.number DESC LIMIT p_limit) i);
END$$;

CREATE FUNCTION jobs.newest_errors(p_job uuid, p_limit int) RETURNS TABLE (generation bigint, errors jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), (SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.number), '[]') FROM (
    SELECT * FROM jobs.error o WHERE o.job = p_job ORDER BY o.number DESC LIMIT p_limit) e);
END$$;

-- Of an account, the newest first; NULL: of any name.
CREATE FUNCTION jobs.of_account(p_account uuid, p_name text, p_running boolean, p_limit int)
RETURNS TABLE (generation bigint, job jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), to_jsonb(j) FROM (VALUES (1)) one LEFT JOIN (
    SELECT * FROM jobs.job o
    WHERE o.account = p_account AND (p_name IS NULL OR o.name = p_name) AND (NOT p_running OR o.state <> 'done')
    ORDER BY o.created_at DESC LIMIT p_limit) j ON true
    ORDER BY j.created_at DESC;
END$$;

-- What a supervisor reads.

-- One job, or with NULL all that are not done, the oldest first.
CREATE FUNCTION jobs.look(p_job uuid) RETURNS TABLE (generation bigint, job jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), to_jsonb(j) FROM (VALUES (1)) one
    LEFT JOIN jobs.job j ON CASE WHEN p_job IS NULL THEN j.state <> 'done' ELSE j.id = p_job END
    ORDER BY j.created_at;
END$$;

CREATE FUNCTION jobs.items(p_job uuid, p_stage int, p_after bigint, p_limit int)
RETURNS TABLE (generation bigint, number bigint, name text, first_input text, reducer int) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), i.number, i.name, i.first_input, i.reducer FROM (VALUES (1)) one LEFT JOIN (
    SELECT o.* FROM jobs.item o WHERE o.job = p_job AND o.stage = p_stage AND o.number > p_after ORDER BY o.number LIMIT p_limit) i ON true
    ORDER BY i.number;
END$$;

CREATE FUNCTION jobs.open_tasks(p_job uuid) RETURNS TABLE (generation bigint, task jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), to_jsonb(t) FROM (VALUES (1)) one LEFT JOIN jobs.task t ON t.job = p_job AND NOT t.done
    ORDER BY t.number;
END$$;

CREATE FUNCTION jobs.feeds(p_job uuid, p_phase int, p_reducer int, p_after bigint, p_limit int)
RETURNS TABLE (generation bigint, feed jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), to_jsonb(f) FROM (VALUES (1)) one LEFT JOIN (
    SELECT o.* FROM jobs.feed o WHERE o.job = p_job AND o.phase = p_phase AND o.reducer = p_reducer AND o.number > p_after
    ORDER BY o.number LIMIT p_limit) f ON true
    ORDER BY f.number;
END$$;

-- What a supervisor moves.

CREATE FUNCTION jobs.lead() RETURNS TABLE (generation bigint, epoch bigint) LANGUAGE plpgsql AS $$
DECLARE
  e bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(10, 0);
  UPDATE jobs.epoch o SET epoch = o.epoch + 1 RETURNING o.epoch INTO e;
  RETURN QUERY SELECT fence.require(), e;
END$$;

-- Whether that epoch is over. It does not end before the transaction.
CREATE FUNCTION jobs.deposed(p_epoch bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(10, 0);
  RETURN (SELECT e.epoch FROM jobs.epoch e) <> p_epoch;
END$$;

-- Add tasks, in their order: [{"phase", "name", "first_input", "reducer", "account", "object_id", "size", "md5", "group_id", "copies"}].
CREATE FUNCTION jobs.open_work(p_job uuid, p_phase int, p_works jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n int := jsonb_array_length(p_works);
  last_one bigint;
BEGIN
  UPDATE jobs.job SET last_task = last_task + n, tasks = tasks + n, open[p_phase + 1] = open[p_phase + 1] + n
    WHERE id = p_job RETURNING last_task INTO last_one;
  INSERT INTO jobs.task (job, number, phase, name, first_input, reducer, account, object_id, size, md5, group_id, copies)
  SELECT p_job, last_one - n + w.number, p_phase, t.name, t.first_input, t.reducer, t.account, t.object_id, t.size, t.md5, t.group_id, t.copies
  FROM jsonb_array_elements(p_works) WITH ORDINALITY AS w (work, number), jsonb_populate_record(NULL::jobs.task, w.work) t;
END$$;

-- [{"phase", "code", "message", "name", "first_input", "stderr", "core"}]
CREATE FUNCTION jobs.fail(p_job uuid, p_errors jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n int := jsonb_array_length(p_errors);
  last_one bigint;
BEGIN
  IF n > 0 THEN
    UPDATE jobs.job SET errors = errors + n WHERE id = p_job RETURNING errors INTO last_one;
    INSERT INTO jobs.error
    SELECT p_job, last_one - n + e.number, x.phase, x.code, x.message, x.name, x.first_input, x.stderr, x.core
    FROM jsonb_array_elements(p_errors) WITH ORDINALITY AS e (error, number), jsonb_populate_record(NULL::jobs.error, e.error) x;
  END IF;
END$$;

CREATE FUNCTION jobs.begin_job(p_epoch bigint, p_job uuid) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  j jobs.job;
BEGIN
  IF NOT gone THEN
    UPDATE jobs.job o SET state = 'running' WHERE o.id = p_job AND o.state = 'queued' RETURNING o.* INTO j;
    PERFORM jobs.open_work(p_job, p.number::int - 1, (
      SELECT jsonb_agg(jsonb_build_object('name', '', 'first_input', '', 'reducer', r) ORDER BY r) FROM generate_series(0, p.reducers - 1) r))
    FROM unnest(j.reducers) WITH ORDINALITY AS p (reducers, number) WHERE p.reducers > 0;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

CREATE FUNCTION jobs.dispatch(
  p_epoch bigint, p_job uuid, p_phase int, p_after bigint, p_upto bigint, p_works jsonb, p_feeds jsonb, p_errors jsonb
) RETURNS TABLE (generation bigint, deposed boolean, done boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  moved boolean := false;
BEGIN
  IF NOT gone THEN
    UPDATE jobs.job SET cursors[p_phase + 1] = p_upto
      WHERE id = p_job AND state = 'running' AND NOT cancelled AND cursors[p_phase + 1] = p_after;
    moved := FOUND;
  END IF;
  IF moved THEN
    IF jsonb_array_length(p_works) > 0 THEN
      PERFORM jobs.open_work(p_job, p_phase, p_works);
    END IF;
    INSERT INTO jobs.feed
    SELECT p_job, p_phase, x.reducer, p_after + f.number, x.name, x.account, x.object_id, x.size, x.md5, x.group_id, x.copies
    FROM jsonb_array_elements(p_feeds) WITH ORDINALITY AS f (feed, number), jsonb_populate_record(NULL::jobs.feed, f.feed) x;
    PERFORM jobs.fail(p_job, p_errors);
  END IF;
  RETURN QUERY SELECT fence.require(), gone, moved;
END$$;

-- Attempts that may be begun by that agent: [{"job", "number", "attempt"}] in, places in that list (from 1) out.
CREATE FUNCTION jobs.hand_out(p_epoch bigint, p_attempts jsonb, p_agent text)
RETURNS TABLE (generation bigint, deposed boolean, begun int[]) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  found_ones int[] := '{}';
BEGIN
  IF NOT gone THEN
    WITH given AS (
      UPDATE jobs.task t SET agent = p_agent
      FROM jsonb_array_elements(p_attempts) WITH ORDINALITY AS a (attempt, place), jsonb_populate_record(NULL::jobs.task, a.attempt) x
      WHERE t.job = x.job AND t.number = x.number AND t.attempt = x.attempt AND NOT t.done AND t.agent IN ('', p_agent)
      RETURNING a.place
    )
    SELECT coalesce(array_agg(g.place::int ORDER BY g.place), '{}') INTO found_ones FROM given g;
  END IF;
  RETURN QUERY SELECT fence.require(), gone, found_ones;
END$$;

-- Tasks that are done by this: counted, and their phases have so many fewer open.
CREATE FUNCTION jobs.close_tasks(p_job uuid, p_phase int, p_count bigint) RETURNS void LANGUAGE sql AS $$
  UPDATE jobs.job SET tasks_done = tasks_done + p_count, open[p_phase + 1] = open[p_phase + 1] - p_count::int WHERE id = p_job
$$;

-- Attempts that nobody will end: [{"job", "number", "attempt", "done"}]; done: it was the last try.
CREATE FUNCTION jobs.give_up(p_epoch bigint, p_lost jsonb, p_message text) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  x jobs.task;
  t jobs.task;
BEGIN
  IF NOT gone THEN
    -- In one order, as a commit takes them: by job.
    FOR x IN SELECT * FROM jsonb_populate_recordset(NULL::jobs.task, p_lost) l ORDER BY l.job, l.number LOOP
      PERFORM jobs.held(x.job);
      UPDATE jobs.task o
        SET done = x.done, attempt = CASE WHEN x.done THEN o.attempt ELSE o.attempt + 1 END, agent = CASE WHEN x.done THEN o.agent ELSE '' END
        WHERE o.job = x.job AND o.number = x.number AND o.attempt = x.attempt AND NOT o.done RETURNING o.* INTO t;
      CONTINUE WHEN NOT FOUND;
      IF x.done THEN
        PERFORM jobs.close_tasks(t.job, t.phase, 1);
        PERFORM jobs.fail(t.job, jsonb_build_array(jsonb_build_object('phase', t.phase, 'code', 'InternalError', 'message', p_message,
          'name', t.name, 'first_input', t.first_input, 'stderr', '', 'core', '')));
      ELSE
        UPDATE jobs.job o SET retries = o.retries + 1, tasks = o.tasks + 1, tasks_done = o.tasks_done + 1 WHERE o.id = t.job;
      END IF;
    END LOOP;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

-- Results of attempts: [{"job", "number", "attempt", "made": [{"name", "reducer"}], "error": null or as in `fail`}]; answers the places in
-- that list (from 1) of those that count.
CREATE FUNCTION jobs.commit_results(p_epoch bigint, p_results jsonb)
RETURNS TABLE (generation bigint, deposed boolean, counted int[]) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  found_ones int[] := '{}';
  of_job uuid;
  g record;
BEGIN
  IF NOT gone THEN
    -- Jobs in one order, and before anything of theirs is looked at.
    FOR of_job IN SELECT DISTINCT (r->>'job')::uuid AS id FROM jsonb_array_elements(p_results) r ORDER BY id LOOP
      PERFORM jobs.held(of_job);
    END LOOP;
    FOR g IN
      WITH decided AS (
        UPDATE jobs.task t SET done = true
        FROM jsonb_array_elements(p_results) WITH ORDINALITY AS r (result, place), jsonb_populate_record(NULL::jobs.task, r.result) x, jobs.job j
        WHERE t.job = x.job AND t.number = x.number AND t.attempt = x.attempt AND NOT t.done AND t.agent <> ''
          AND j.id = x.job AND NOT j.cancelled
        RETURNING t.job, t.phase, t.name, t.first_input, t.reducer, r.place, r.result
      )
      SELECT d.job, d.phase, count(*) AS tasks, array_agg(d.place::int) AS places,
             jsonb_agg(d.result->'error' ORDER BY d.place) FILTER (WHERE d.result->'error' <> 'null') AS errors,
             jsonb_agg(jsonb_build_object(
               'made', d.result->'made',
               'first_input', CASE WHEN d.first_input <> '' OR d.phase > 0 OR d.reducer IS NOT NULL THEN d.first_input ELSE d.name END
             ) ORDER BY d.place) FILTER (WHERE d.result->'error' = 'null') AS made
      FROM decided d GROUP BY d.job, d.phase
    LOOP
      found_ones := found_ones || g.places;
      PERFORM jobs.close_tasks(g.job, g.phase, g.tasks);
      PERFORM jobs.fail(g.job, coalesce(g.errors, '[]'));
      PERFORM jobs.hand_on(g.job, g.phase + 1, coalesce(g.made, '[]'));
    END LOOP;
  END IF;
  RETURN QUERY SELECT fence.require(), gone, (SELECT coalesce(array_agg(f ORDER BY f), '{}') FROM unnest(found_ones) f);
END$$;

-- Items of a stage, from what tasks made: [{"made": [{"name", "reducer"}], "first_input"}]. The job's row is locked by the caller.
CREATE FUNCTION jobs.hand_on(p_job uuid, p_stage int, p_made jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  size bigint := (SELECT sizes[p_stage + 1] FROM jobs.job WHERE id = p_job);
  added bigint;
BEGIN
  INSERT INTO jobs.item (job, stage, number, name, first_input, reducer)
  SELECT p_job, p_stage, size + row_number() OVER (ORDER BY t.number, m.number), m.made->>'name', t.task->>'first_input', (m.made->>'reducer')::int
  FROM jsonb_array_elements(p_made) WITH ORDINALITY AS t (task, number),
       jsonb_array_elements(t.task->'made') WITH ORDINALITY AS m (made, number);
  GET DIAGNOSTICS added = ROW_COUNT;
  IF added > 0 THEN
    UPDATE jobs.job SET sizes[p_stage + 1] = size + added WHERE id = p_job;
  END IF;
END$$;

-- Of a cancelled job: what is open ends with an error each.
CREATE FUNCTION jobs.abandon(p_epoch bigint, p_job uuid, p_message text) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  j jobs.job;
  g record;
BEGIN
  IF NOT gone THEN
    j := jobs.held(p_job);
    FOR g IN
      WITH ended AS (UPDATE jobs.task t SET done = true WHERE t.job = j.id AND NOT t.done AND j.cancelled RETURNING t.*)
      SELECT e.phase, count(*) AS tasks, jsonb_agg(jsonb_build_object('phase', e.phase, 'code', 'JobCancelledError', 'message', p_message,
        'name', e.name, 'first_input', e.first_input, 'stderr', '', 'core', '') ORDER BY e.number) AS errors
      FROM ended e GROUP BY e.phase
    LOOP
      PERFORM jobs.close_tasks(p_job, g.phase, g.tasks);
      PERFORM jobs.fail(p_job, g.errors);
    END LOOP;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

CREATE FUNCTION jobs.finish(p_epoch bigint, p_job uuid) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
BEGIN
  IF NOT gone THEN
    UPDATE jobs.job j SET state = 'done', done_at = clock_timestamp()
      WHERE j.id = p_job AND j.state <> 'done' AND NOT EXISTS (SELECT FROM jobs.task t WHERE t.job = p_job AND NOT t.done)
        AND (j.cancelled OR j.state = 'running' AND j.input_ended AND j.cursors = j.sizes[1:cardinality(j.cursors)]);
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

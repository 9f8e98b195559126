-- How things of a job end: what a task put out in great number, what was handed on and is not needed any more, inputs that nobody ends, the
-- archive, and the rows themselves. Why so: docs/decisions/0011.
ALTER TABLE jobs.job
  ADD input_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- when the last input came
  ADD parts int NOT NULL DEFAULT 0,                             -- attempts whose names are still to be moved or dropped
  ADD clearing int NOT NULL DEFAULT 0,                          -- tasks that are done, of whose objects some are still to be deleted
  ADD archive_started_at timestamptz,
  ADD archived_at timestamptz,
  ADD live boolean NOT NULL DEFAULT true;                       -- clients may still ask for it
CREATE INDEX job_unarchived ON jobs.job (done_at) WHERE state = 'done' AND archived_at IS NULL;
CREATE INDEX job_archived ON jobs.job (archived_at) WHERE archived_at IS NOT NULL;

-- Whose error it is; no task's: of an item that could not be dispatched.
ALTER TABLE jobs.error ADD task bigint, ADD attempt int NOT NULL DEFAULT 0, ADD server text NOT NULL DEFAULT '';

-- Its object (of a reducer: some of what it is fed) is the job's own, and is deleted once the task is done.
ALTER TABLE jobs.task ADD clears boolean NOT NULL DEFAULT false;
ALTER TABLE jobs.feed ADD clears boolean NOT NULL DEFAULT false;
CREATE INDEX task_reducer ON jobs.task (job, phase, reducer) WHERE reducer IS NOT NULL;
CREATE INDEX task_clears ON jobs.task (job, number) WHERE done AND clears;
CREATE INDEX feed_clears ON jobs.feed (job, phase, reducer, number) WHERE clears;

-- An attempt that puts out much, and its names. 'kept': it still runs; 'counts': they become items, 'lost': they go, part by part.
CREATE TABLE jobs.emitted (
  job uuid NOT NULL,
  task bigint NOT NULL,
  attempt int NOT NULL,
  phase int NOT NULL,
  first_input text NOT NULL,                       -- of the items
  state text NOT NULL DEFAULT 'kept' CHECK (state IN ('kept', 'counts', 'lost')),
  moved bigint NOT NULL DEFAULT 0,                 -- names up to this one are items, or gone
  PRIMARY KEY (job, task, attempt)
);
CREATE TABLE jobs.made (
  job uuid NOT NULL,
  task bigint NOT NULL,
  attempt int NOT NULL,
  number bigint NOT NULL,
  name text NOT NULL,
  reducer int,
  PRIMARY KEY (job, task, attempt, number)
);

-- As in 0010, and what is new here.

CREATE OR REPLACE FUNCTION jobs.add_inputs(p_job uuid, p_names text[]) RETURNS TABLE (generation bigint, refused text) LANGUAGE plpgsql AS $$
DECLARE
  j jobs.job := jobs.held(p_job);
  why text := jobs.refusal(j, true);
BEGIN
  IF why IS NULL THEN
    INSERT INTO jobs.item (job, stage, number, name)
    SELECT p_job, 0, j.sizes[1] + n.number, n.name FROM unnest(p_names) WITH ORDINALITY AS n (name, number);
    UPDATE jobs.job SET sizes[1] = j.sizes[1] + cardinality(p_names), input_at = clock_timestamp() WHERE id = p_job;
  END IF;
  RETURN QUERY SELECT fence.require(), why;
END$$;

-- Of an account, those that are still live, the newest first; NULL: of any name.
CREATE OR REPLACE FUNCTION jobs.of_account(p_account uuid, p_name text, p_running boolean, p_limit int)
RETURNS TABLE (generation bigint, job jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), to_jsonb(j) FROM (VALUES (1)) one LEFT JOIN (
    SELECT * FROM jobs.job o
    WHERE o.account = p_account AND o.live AND (p_name IS NULL OR o.name = p_name) AND (NOT p_running OR o.state <> 'done')
    ORDER BY o.created_at DESC LIMIT p_limit) j ON true
    ORDER BY j.created_at DESC;
END$$;

CREATE OR REPLACE FUNCTION jobs.open_work(p_job uuid, p_phase int, p_works jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n int := jsonb_array_length(p_works);
  last_one bigint;
BEGIN
  UPDATE jobs.job SET last_task = last_task + n, tasks = tasks + n, open[p_phase + 1] = open[p_phase + 1] + n
    WHERE id = p_job RETURNING last_task INTO last_one;
  INSERT INTO jobs.task (job, number, phase, name, first_input, reducer, account, object_id, size, md5, group_id, copies, clears)
  SELECT p_job, last_one - n + w.number, p_phase, t.name, t.first_input, t.reducer, t.account, t.object_id, t.size, t.md5, t.group_id,
         t.copies, coalesce(t.clears, false)
  FROM jsonb_array_elements(p_works) WITH ORDINALITY AS w (work, number), jsonb_populate_record(NULL::jobs.task, w.work) t;
END$$;

CREATE OR REPLACE FUNCTION jobs.fail(p_job uuid, p_errors jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n int := jsonb_array_length(p_errors);
  last_one bigint;
BEGIN
  IF n > 0 THEN
    UPDATE jobs.job SET errors = errors + n WHERE id = p_job RETURNING errors INTO last_one;
    INSERT INTO jobs.error (job, number, phase, code, message, name, first_input, stderr, core, task, attempt, server)
    SELECT p_job, last_one - n + e.number, x.phase, x.code, x.message, x.name, x.first_input, x.stderr, x.core,
           x.task, coalesce(x.attempt, 0), coalesce(x.server, '')
    FROM jsonb_array_elements(p_errors) WITH ORDINALITY AS e (error, number), jsonb_populate_record(NULL::jobs.error, e.error) x;
  END IF;
END$$;

-- Whose error it is, to be added to one.
CREATE FUNCTION jobs.whose(t jobs.task) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$SELECT jsonb_build_object('task', t.number, 'attempt', t.attempt, 'server', split_part(t.agent, '/', 1))$$;

-- An error of a task that nobody ran to its end.
CREATE FUNCTION jobs.error_of(t jobs.task, p_code text, p_message text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('phase', t.phase, 'code', p_code, 'message', p_message, 'name', t.name, 'first_input', t.first_input,
                            'stderr', '', 'core', '') || jobs.whose(t)
$$;

CREATE OR REPLACE FUNCTION jobs.dispatch(
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
    INSERT INTO jobs.feed (job, phase, reducer, number, name, account, object_id, size, md5, group_id, copies, clears)
    SELECT p_job, p_phase, x.reducer, p_after + f.number, x.name, x.account, x.object_id, x.size, x.md5, x.group_id, x.copies,
           coalesce(x.clears, false)
    FROM jsonb_array_elements(p_feeds) WITH ORDINALITY AS f (feed, number), jsonb_populate_record(NULL::jobs.feed, f.feed) x;
    UPDATE jobs.task t SET clears = true
      WHERE t.job = p_job AND t.phase = p_phase AND NOT t.done AND NOT t.clears AND t.reducer IS NOT NULL AND t.reducer IN (
        SELECT (f->>'reducer')::int FROM jsonb_array_elements(p_feeds) f WHERE (f->>'clears')::boolean);
    PERFORM jobs.fail(p_job, p_errors);
  END IF;
  RETURN QUERY SELECT fence.require(), gone, moved;
END$$;

-- An attempt that has put out much is over. Its job's row is locked by the caller.
CREATE FUNCTION jobs.settle_made(p_job uuid, p_task bigint, p_attempt int, p_state text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE jobs.emitted e SET state = p_state WHERE e.job = p_job AND e.task = p_task AND e.attempt = p_attempt AND e.state = 'kept';
  IF FOUND THEN
    UPDATE jobs.job SET parts = parts + 1 WHERE id = p_job;
  END IF;
END$$;

CREATE OR REPLACE FUNCTION jobs.give_up(p_epoch bigint, p_lost jsonb, p_message text) RETURNS TABLE (generation bigint, deposed boolean)
LANGUAGE plpgsql AS $$
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
      PERFORM jobs.settle_made(x.job, x.number, x.attempt, 'lost');
      IF x.done THEN
        PERFORM jobs.close_tasks(t.job, t.phase, 1);
        PERFORM jobs.fail(t.job, jsonb_build_array(jobs.error_of(t, 'InternalError', p_message)));
        UPDATE jobs.job o SET clearing = o.clearing + 1 WHERE o.id = t.job AND t.clears;
      ELSE
        UPDATE jobs.job o SET retries = o.retries + 1, tasks = o.tasks + 1, tasks_done = o.tasks_done + 1 WHERE o.id = t.job;
      END IF;
    END LOOP;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

-- Of a task that has put out much, names are in jobs.made: the last ones join them, and the task stays open until all are moved. An object
-- that a task hands on itself is not deleted after it.
CREATE OR REPLACE FUNCTION jobs.commit_results(p_epoch bigint, p_results jsonb)
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
        UPDATE jobs.task t SET done = true, clears = t.clears AND NOT (
          r.result->'error' = 'null' AND (
            r.result->'made' @> jsonb_build_array(jsonb_build_object('name', t.name))
            OR EXISTS (SELECT FROM jobs.made m WHERE m.job = t.job AND m.task = t.number AND m.attempt = t.attempt AND m.name = t.name)))
        FROM jsonb_array_elements(p_results) WITH ORDINALITY AS r (result, place), jsonb_populate_record(NULL::jobs.task, r.result) x, jobs.job j
        WHERE t.job = x.job AND t.number = x.number AND t.attempt = x.attempt AND NOT t.done AND t.agent <> ''
          AND j.id = x.job AND NOT j.cancelled
        RETURNING t.job, t.number, t.attempt, t.phase, t.name, t.first_input, t.reducer, t.clears, jobs.whose(t) AS whose, r.place,
          r.result->'made' AS made, nullif(r.result->'error', 'null') AS error,
          EXISTS (SELECT FROM jobs.emitted e WHERE e.job = t.job AND e.task = t.number AND e.attempt = t.attempt) AS much
      )
      SELECT d.job, d.phase, count(*) FILTER (WHERE d.error IS NOT NULL OR NOT d.much) AS tasks, array_agg(d.place::int) AS places,
             count(*) FILTER (WHERE d.clears) AS clears,
             jsonb_agg(d.error || d.whose ORDER BY d.place) FILTER (WHERE d.error IS NOT NULL) AS errors,
             jsonb_agg(jsonb_build_object(
               'made', d.made,
               'first_input', CASE WHEN d.first_input <> '' OR d.phase > 0 OR d.reducer IS NOT NULL THEN d.first_input ELSE d.name END
             ) ORDER BY d.place) FILTER (WHERE d.error IS NULL AND NOT d.much) AS made,
             jsonb_agg(jsonb_build_object('task', d.number, 'attempt', d.attempt, 'made', d.made, 'failed', d.error IS NOT NULL) ORDER BY d.place)
               FILTER (WHERE d.much) AS much
      FROM decided d GROUP BY d.job, d.phase
    LOOP
      found_ones := found_ones || g.places;
      PERFORM jobs.close_tasks(g.job, g.phase, g.tasks);
      PERFORM jobs.fail(g.job, coalesce(g.errors, '[]'));
      PERFORM jobs.hand_on(g.job, g.phase + 1, coalesce(g.made, '[]'));
      PERFORM jobs.join_made(g.job, (m->>'task')::bigint, (m->>'attempt')::int, m->'made', (m->>'failed')::boolean)
        FROM jsonb_array_elements(g.much) m;
      UPDATE jobs.job o SET clearing = o.clearing + g.clears::int WHERE o.id = g.job AND g.clears > 0;
    END LOOP;
  END IF;
  RETURN QUERY SELECT fence.require(), gone, (SELECT coalesce(array_agg(f ORDER BY f), '{}') FROM unnest(found_ones) f);
END$$;

-- The last names of an attempt that has put out much, and what becomes of all of them.
CREATE FUNCTION jobs.join_made(p_job uuid, p_task bigint, p_attempt int, p_made jsonb, p_failed boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF NOT p_failed THEN
    INSERT INTO jobs.made (job, task, attempt, number, name, reducer)
    SELECT p_job, p_task, p_attempt, l.last_one + m.number, m.made->>'name', (m.made->>'reducer')::int
    FROM (SELECT coalesce(max(o.number), 0) AS last_one FROM jobs.made o
          WHERE o.job = p_job AND o.task = p_task AND o.attempt = p_attempt) l,
         jsonb_array_elements(p_made) WITH ORDINALITY AS m (made, number);
  END IF;
  PERFORM jobs.settle_made(p_job, p_task, p_attempt, CASE WHEN p_failed THEN 'lost' ELSE 'counts' END);
END$$;

CREATE OR REPLACE FUNCTION jobs.abandon(p_epoch bigint, p_job uuid, p_message text) RETURNS TABLE (generation bigint, deposed boolean)
LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  j jobs.job;
  g record;
BEGIN
  IF NOT gone THEN
    j := jobs.held(p_job);
    FOR g IN
      WITH ended AS (UPDATE jobs.task t SET done = true WHERE t.job = j.id AND NOT t.done AND j.cancelled
                     RETURNING t.phase, t.number, jobs.error_of(t, 'JobCancelledError', p_message) AS error)
      SELECT e.phase, count(*) AS tasks, jsonb_agg(e.error ORDER BY e.number) AS errors FROM ended e GROUP BY e.phase
    LOOP
      PERFORM jobs.close_tasks(p_job, g.phase, g.tasks);
      PERFORM jobs.fail(p_job, g.errors);
    END LOOP;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

CREATE OR REPLACE FUNCTION jobs.finish(p_epoch bigint, p_job uuid) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
BEGIN
  IF NOT gone THEN
    UPDATE jobs.job j SET state = 'done', done_at = clock_timestamp()
      WHERE j.id = p_job AND j.state <> 'done' AND NOT EXISTS (SELECT FROM jobs.task t WHERE t.job = p_job AND NOT t.done)
        AND (j.cancelled OR j.state = 'running' AND j.input_ended AND j.cursors = j.sizes[1:cardinality(j.cursors)]
             AND j.parts = 0 AND j.clearing = 0);
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

-- What an attempt puts out in great number: names after `p_after` of its own, [{"name", "reducer"}]; `kept` false: it does not count any more.
CREATE FUNCTION jobs.keep_made(p_epoch bigint, p_job uuid, p_task bigint, p_attempt int, p_after bigint, p_made jsonb)
RETURNS TABLE (generation bigint, deposed boolean, kept boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  j jobs.job;
  t jobs.task;
BEGIN
  IF NOT gone THEN
    j := jobs.held(p_job);
    SELECT * INTO t FROM jobs.task o
      WHERE o.job = j.id AND o.number = p_task AND o.attempt = p_attempt AND NOT o.done AND o.agent <> '' AND NOT j.cancelled;
    IF t.job IS NOT NULL THEN
      INSERT INTO jobs.emitted (job, task, attempt, phase, first_input) VALUES (
        p_job, p_task, p_attempt, t.phase,
        CASE WHEN t.first_input <> '' OR t.phase > 0 OR t.reducer IS NOT NULL THEN t.first_input ELSE t.name END)
      ON CONFLICT DO NOTHING;
      INSERT INTO jobs.made (job, task, attempt, number, name, reducer)
      SELECT p_job, p_task, p_attempt, p_after + m.number, m.made->>'name', (m.made->>'reducer')::int
      FROM jsonb_array_elements(p_made) WITH ORDINALITY AS m (made, number)
      ON CONFLICT DO NOTHING;
    END IF;
  END IF;
  RETURN QUERY SELECT fence.require(), gone, t.job IS NOT NULL;
END$$;

-- The next names of one of the job's attempts that put out much: items, or gone.
CREATE FUNCTION jobs.move_made(p_epoch bigint, p_job uuid, p_limit int) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  j jobs.job;
  e jobs.emitted;
  n bigint;
BEGIN
  IF NOT gone THEN
    j := jobs.held(p_job);
    SELECT * INTO e FROM jobs.emitted o WHERE o.job = p_job AND o.state <> 'kept' ORDER BY o.task, o.attempt LIMIT 1;
  END IF;
  IF e.job IS NOT NULL THEN
    -- A range of numbers: a list of them may be joined in a bad way, as nobody knows how many rows there are.
    WITH taken AS (
      DELETE FROM jobs.made m
      WHERE m.job = e.job AND m.task = e.task AND m.attempt = e.attempt AND m.number > e.moved AND m.number <= e.moved + p_limit
      RETURNING m.number, m.name, m.reducer
    ), items AS (
      INSERT INTO jobs.item (job, stage, number, name, first_input, reducer)
      SELECT p_job, e.phase + 1, j.sizes[e.phase + 2] + t.number - e.moved, t.name, e.first_input, t.reducer
      FROM taken t WHERE e.state = 'counts'
    )
    SELECT count(*) INTO n FROM taken;
    IF e.state = 'counts' THEN
      UPDATE jobs.job o SET sizes[e.phase + 2] = j.sizes[e.phase + 2] + n WHERE o.id = p_job;
    END IF;
    UPDATE jobs.emitted o SET moved = o.moved + n WHERE o.job = e.job AND o.task = e.task AND o.attempt = e.attempt;
    IF n < p_limit THEN
      DELETE FROM jobs.emitted o WHERE o.job = e.job AND o.task = e.task AND o.attempt = e.attempt;
      UPDATE jobs.job o SET parts = o.parts - 1 WHERE o.id = p_job;
      IF e.state = 'counts' THEN
        PERFORM jobs.close_tasks(p_job, e.phase, 1);
      END IF;
    END IF;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

-- What was handed on, and is not needed any more. `feed` 0: a task's own object.
CREATE FUNCTION jobs.to_clear(p_job uuid, p_limit int)
RETURNS TABLE (generation bigint, task bigint, feed bigint, name text, object_id uuid) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), c.task, c.feed, c.name, c.object_id FROM (VALUES (1)) one LEFT JOIN (
    SELECT t.number AS task, coalesce(f.number, 0) AS feed, coalesce(f.name, t.name) AS name, coalesce(f.object_id, t.object_id) AS object_id
    FROM jobs.task t LEFT JOIN jobs.feed f ON f.job = t.job AND f.phase = t.phase AND f.reducer = t.reducer AND f.clears
    WHERE t.job = p_job AND t.done AND t.clears AND (t.reducer IS NULL OR f.number IS NOT NULL)
    ORDER BY t.number, f.number LIMIT p_limit) c ON true
    ORDER BY c.task, c.feed;
END$$;

-- They are deleted: [{"task", "feed"}].
CREATE FUNCTION jobs.cleared(p_epoch bigint, p_job uuid, p_cleared jsonb) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  n int;
BEGIN
  IF NOT gone THEN
    PERFORM jobs.held(p_job);
    UPDATE jobs.feed f SET clears = false
      FROM jsonb_array_elements(p_cleared) c, jobs.task t
      WHERE t.job = p_job AND t.number = (c->>'task')::bigint AND t.done
        AND f.job = p_job AND f.phase = t.phase AND f.reducer = t.reducer AND f.number = (c->>'feed')::bigint;
    UPDATE jobs.task t SET clears = false
      WHERE t.job = p_job AND t.done AND t.clears AND t.number IN (SELECT (c->>'task')::bigint FROM jsonb_array_elements(p_cleared) c)
        AND NOT EXISTS (SELECT FROM jobs.feed f WHERE f.job = p_job AND f.phase = t.phase AND f.reducer = t.reducer AND f.clears);
    GET DIAGNOSTICS n = ROW_COUNT;
    UPDATE jobs.job o SET clearing = o.clearing - n WHERE o.id = p_job AND n > 0;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

-- Jobs to which nobody has added anything for so long get nothing more.
CREATE FUNCTION jobs.end_idle(p_epoch bigint, p_idle interval) RETURNS TABLE (generation bigint, deposed boolean, ended uuid[]) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  found_ones uuid[] := '{}';
BEGIN
  IF NOT gone THEN
    -- One that is locked is not idle; and who waits for none waits in no circle.
    WITH idle AS (
      SELECT j.id FROM jobs.job j WHERE j.state <> 'done' AND NOT j.input_ended AND j.input_at < clock_timestamp() - p_idle
      FOR UPDATE SKIP LOCKED
    ), closed AS (UPDATE jobs.job j SET input_ended = true FROM idle i WHERE j.id = i.id RETURNING j.id)
    SELECT coalesce(array_agg(c.id), '{}') INTO found_ones FROM closed c;
  END IF;
  RETURN QUERY SELECT fence.require(), gone, found_ones;
END$$;

-- The archive.

CREATE FUNCTION jobs.errors(p_job uuid, p_after bigint, p_limit int) RETURNS TABLE (generation bigint, errors jsonb) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY SELECT fence.leased(), (SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.number), '[]') FROM (
    SELECT * FROM jobs.error o WHERE o.job = p_job AND o.number > p_after ORDER BY o.number LIMIT p_limit) e);
END$$;

-- Jobs that wait for something since that long: 'archive' since they were done, 'close' and 'purge' since they were archived.
CREATE FUNCTION jobs.due(p_what text, p_age interval, p_limit int) RETURNS TABLE (generation bigint, ids uuid[]) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  before timestamptz := clock_timestamp() - p_age;
BEGIN
  IF p_what = 'archive' THEN
    RETURN QUERY SELECT fence.leased(), ARRAY(
      SELECT j.id FROM jobs.job j WHERE j.state = 'done' AND j.archived_at IS NULL AND j.done_at <= before ORDER BY j.done_at LIMIT p_limit);
  ELSE
    RETURN QUERY SELECT fence.leased(), ARRAY(
      SELECT j.id FROM jobs.job j WHERE j.archived_at IS NOT NULL AND j.archived_at <= before AND j.live = (p_what = 'close')
      ORDER BY j.archived_at LIMIT p_limit);
  END IF;
END$$;

CREATE FUNCTION jobs.begin_archive(p_epoch bigint, p_job uuid) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
BEGIN
  IF NOT gone THEN
    UPDATE jobs.job j SET archive_started_at = clock_timestamp() WHERE j.id = p_job AND j.state = 'done' AND j.archived_at IS NULL;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

CREATE FUNCTION jobs.end_archive(p_epoch bigint, p_job uuid, p_at timestamptz) RETURNS TABLE (generation bigint, deposed boolean)
LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
BEGIN
  IF NOT gone THEN
    UPDATE jobs.job j SET archived_at = p_at WHERE j.id = p_job AND j.state = 'done' AND j.archived_at IS NULL;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

CREATE FUNCTION jobs.close_job(p_epoch bigint, p_job uuid) RETURNS TABLE (generation bigint, deposed boolean) LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
BEGIN
  IF NOT gone THEN
    UPDATE jobs.job j SET live = false WHERE j.id = p_job AND j.archived_at IS NOT NULL;
  END IF;
  RETURN QUERY SELECT fence.require(), gone;
END$$;

-- Delete rows of a job that is not live, some at a time; `done`: none is left, nor the job's own.
CREATE FUNCTION jobs.purge(p_epoch bigint, p_job uuid, p_limit int) RETURNS TABLE (generation bigint, deposed boolean, done boolean)
LANGUAGE plpgsql AS $$
DECLARE
  gone boolean := jobs.deposed(p_epoch);
  part text;
  n int := 0;
BEGIN
  IF NOT gone AND EXISTS (SELECT FROM jobs.job j WHERE j.id = p_job AND NOT j.live) THEN
    FOREACH part IN ARRAY ARRAY['item', 'feed', 'made', 'emitted', 'error', 'task'] LOOP
      EXECUTE format('DELETE FROM jobs.%1$I WHERE ctid = ANY (ARRAY(SELECT ctid FROM jobs.%1$I WHERE job = $1 LIMIT $2))', part)
        USING p_job, p_limit;
      GET DIAGNOSTICS n = ROW_COUNT;
      EXIT WHEN n > 0;
    END LOOP;
    IF n = 0 THEN
      DELETE FROM jobs.job j WHERE j.id = p_job;
    END IF;
  END IF;
  RETURN QUERY SELECT fence.require(), gone, NOT EXISTS (SELECT FROM jobs.job j WHERE j.id = p_job);
END$$;

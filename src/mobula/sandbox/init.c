/* A sandbox: makes its namespaces, is process 1 of them, and runs one task after another, each in namespaces of its own below.

     sandbox-init CONTROL ROOT UID_BASE NAME ACCOUNTING [CGROUP_PROCS...]

   CONTROL     a SOCK_SEQPACKET socket to the agent. Its end is the end of everything in here.
   ROOT        a detached mount, which becomes /
   UID_BASE    ids 0..65535 in here are UID_BASE.. outside
   NAME        the host name in here
   ACCOUNTING  a file for the kernel's records of processes that have ended, or "-": tells of core dumps
   CGROUP...   files that this process writes itself to

   To the agent:  "P <pid>"          process 1, as the host knows it
                  "U"                up
                  "D <status> <user us> <system us> <peak KiB> <why>"   a task has ended; why: it could not be started
                  "E <why>"          the sandbox could not be made, or is broken
   From it:       "R" and strings, each with its NUL, the first letter says what:  c the command, e NAME=value,
                      n the path at which the object is found, i standard input is a pipe
                      with descriptors: standard output, standard error, then the object's detached mount, or the pipe
                  "K"                kill the task that runs

   Static and small: it is in memory once for each of a thousand sandboxes. Why so: docs/decisions/0012. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define IDS 65536
#define MESSAGE_BYTES_MAX 262144
#define ENVIRONMENT_MAX 512
#define MOVE_MOUNT_FROM_DESCRIPTOR 4

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

static int control;
static int failures = -1; /* of a task: where it says why it could not be started */

static void fail(const char *what) {
  char text[300];
  int n = snprintf(text, sizeof text, "E %s: %s", what, strerror(errno));
  if (failures >= 0) {
    if (write(failures, text, n) < 0) _exit(112);
  } else {
    send(control, text, n, MSG_NOSIGNAL);
  }
  _exit(111);
}

#define MUST(call)                \
  do {                            \
    if ((long)(call) < 0) fail(#call); \
  } while (0)

static void put(const char *file, const char *text) {
  int fd = open(file, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(file);
  close(fd);
}

static pid_t clone_into(unsigned long namespaces) {
  struct clone_args how = {.flags = namespaces, .exit_signal = SIGCHLD};
  return syscall(SYS_clone3, &how, sizeof how);
}

/* What a task's processes may not do. The user namespace and the capabilities that are gone are the wall; this takes the kernel's rarer
   doors away, and families of sockets that no namespace holds (vsock). */

static const int refused[] = {
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick,
    SYS_mount_setattr, SYS_setns, SYS_unshare, SYS_reboot, SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module,
    SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_add_key, SYS_request_key, SYS_keyctl, SYS_bpf, SYS_userfaultfd,
    SYS_perf_event_open, SYS_open_by_handle_at, SYS_syslog, SYS_vhangup, SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime,
    SYS_adjtimex, SYS_fanotify_init, SYS_kcmp, SYS_move_pages, SYS_migrate_pages, SYS_mbind, SYS_set_mempolicy,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_quotactl_fd
    SYS_quotactl_fd,
#endif
#ifdef SYS_iopl
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_ustat, SYS_sysfs,
#endif
};
/* Of these programs try the older way when they hear that there is no such call. */
static const int unknown[] = {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_clone3};
static const unsigned namespaces[] = {CLONE_NEWNS,  CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                      CLONE_NEWUSER, CLONE_NEWPID,   CLONE_NEWNET};
static const unsigned families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
static const unsigned terminal_inputs[] = {0x5412 /* TIOCSTI */, 0x541C /* TIOCLINUX */};

#define COUNT(list) (sizeof(list) / sizeof *(list))
#define ANSWER(error) (SECCOMP_RET_ERRNO | (error))
#define LOW(n) (offsetof(struct seccomp_data, args[n])) /* of an argument, where the low half comes first */

static struct sock_filter code[256];
static unsigned short code_length;

static void emit(unsigned short op, unsigned char yes, unsigned char no, unsigned value) {
  if (code_length == COUNT(code)) _exit(113);
  code[code_length++] = (struct sock_filter){op, yes, no, value};
}

/* If what is loaded is that value (or has one of those bits: BPF_JSET), answer. */
static void answer_if(unsigned short how, unsigned value, unsigned answer) {
  emit(BPF_JMP | how | BPF_K, 0, 1, value);
  emit(BPF_RET | BPF_K, 0, 0, answer);
}

static void make_filter(void) {
  unsigned all = 0;
  for (size_t i = 0; i < COUNT(namespaces); i++) all |= namespaces[i];
  emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
  emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ARCHITECTURE);
  emit(BPF_RET | BPF_K, 0, 0, ANSWER(ENOSYS));
  emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
  emit(BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x40000000); /* the x32 calls */
  emit(BPF_RET | BPF_K, 0, 0, ANSWER(ENOSYS));
#endif
  for (size_t i = 0; i < COUNT(refused); i++) answer_if(BPF_JEQ, refused[i], ANSWER(EPERM));
  for (size_t i = 0; i < COUNT(unknown); i++) answer_if(BPF_JEQ, unknown[i], ANSWER(ENOSYS));
  /* clone, socket, ioctl: their arguments decide. Each part is skipped by the others and ends by itself. */
  emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, SYS_clone);
  emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, LOW(0));
  answer_if(BPF_JSET, all, ANSWER(EPERM));
  emit(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
  emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 2 + 2 * COUNT(families), SYS_socket);
  emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, LOW(0));
  for (size_t i = 0; i < COUNT(families); i++) answer_if(BPF_JEQ, families[i], SECCOMP_RET_ALLOW);
  emit(BPF_RET | BPF_K, 0, 0, ANSWER(EAFNOSUPPORT));
  emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 1 + 2 * COUNT(terminal_inputs), SYS_ioctl);
  emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, LOW(1));
  for (size_t i = 0; i < COUNT(terminal_inputs); i++) answer_if(BPF_JEQ, terminal_inputs[i], ANSWER(EPERM));
  emit(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
}

/* What root keeps: nothing that reaches beyond files, owners, and its own processes. */
static const int kept[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,           CAP_FSETID,     CAP_KILL,
                           CAP_SETGID, CAP_SETUID,       CAP_SETFCAP,         CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT, CAP_NET_RAW};

static void drop_rights(void) {
  unsigned long long mask = 0;
  for (size_t i = 0; i < COUNT(kept); i++) mask |= 1ULL << kept[i];
  for (int c = 0; c <= CAP_LAST_CAP; c++)
    if (!(mask >> c & 1)) prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
  /* Without PR_SET_NO_NEW_PRIVS, so that sudo works: CAP_SYS_ADMIN in a user namespace of our own is enough. */
  struct sock_fprog program = {code_length, code};
  MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
  struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{0}};
  for (int i = 0; i < 2; i++) data[i].effective = data[i].permitted = (unsigned)(mask >> (32 * i));
  MUST(syscall(SYS_capset, &head, data));
}

static void make_parents(char *path) {
  for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
    *slash = 0;
    mkdir(path, 0755);
    *slash = '/';
  }
}

/* One task. */

struct request {
  char *command, *place;
  char *environment[ENVIRONMENT_MAX + 1];
  int has_pipe;
};

static struct request read_request(char *text, int length) {
  struct request found = {.command = ""};
  int n = 0;
  for (char *p = text + 2; p < text + length; p += strlen(p) + 1) switch (*p) {
      case 'c': found.command = p + 1; break;
      case 'n': found.place = p + 1; break;
      case 'i': found.has_pipe = 1; break;
      case 'e':
        if (n < ENVIRONMENT_MAX) found.environment[n++] = p + 1;
        break;
    }
  return found;
}

static void mask_proc(void) {
  static const char *read_only[] = {"/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"};
  static const char *hidden[] = {"/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sysrq-trigger", "/proc/kmsg"};
  for (size_t i = 0; i < COUNT(read_only); i++)
    if (!mount(read_only[i], read_only[i], 0, MS_BIND | MS_REC, 0))
      MUST(mount(0, read_only[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
  for (size_t i = 0; i < COUNT(hidden); i++)
    if (mount("/dev/null", hidden[i], 0, MS_BIND, 0) && errno != ENOENT) fail(hidden[i]);
}

/* The object at its name, below a folder of this task alone: both go with its mount namespace. */
static int place_object(char *place, int object) {
  MUST(mount("tmpfs", "/manta", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755"));
  make_parents(place);
  int file = open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (file < 0) fail("make the object's place");
  close(file);
  MUST(syscall(SYS_move_mount, object, "", AT_FDCWD, place, MOVE_MOUNT_FROM_DESCRIPTOR));
  close(object);
  int in = open(place, O_RDONLY | O_CLOEXEC);
  if (in < 0) fail("open the object");
  MUST(mount(0, "/manta", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, 0));
  return in;
}

static void run_command(const struct request *wanted, int in, int out, int err) {
  setsid();
  dup2(in, 0);
  dup2(out, 1);
  dup2(err, 2);
  syscall(SYS_close_range, 3, ~0U, 0);
  drop_rights();
  struct rlimit any = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_CORE, &any);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, 0);
  signal(SIGPIPE, SIG_DFL);
  if (chdir("/")) _exit(126);
  char *argv[] = {"bash", "--norc", "-c", wanted->command, 0};
  execve("/bin/bash", argv, (char **)wanted->environment);
  _exit(127);
}

/* Process 1 of a task. bash is not: signals that it sends to itself would do nothing. When bash has ended so does this, and the kernel
   kills what is left. */
static void run_task(char *text, int length, const int *given, int count, int answer) {
  struct request wanted = read_request(text, length);
  failures = answer;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
  if (count < 2 || (count > 2) != (wanted.place || wanted.has_pipe)) {
    errno = EINVAL;
    fail("read a request");
  }
  MUST(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
  mask_proc();
  /* What one task leaves in shared memory must not count as the next one's. */
  MUST(mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"));
  int in = wanted.place      ? place_object(wanted.place, given[2])
           : wanted.has_pipe ? given[2]
                             : open("/dev/null", O_RDONLY | O_CLOEXEC);
  pid_t bash = fork();
  MUST(bash);
  if (!bash) run_command(&wanted, in, given[0], given[1]);
  close(in);
  close(given[0]);
  close(given[1]);
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(-1, &status, 0)) != bash)
    if (ended < 0 && errno != EINTR) fail("wait for the command");
  if (write(answer, &status, sizeof status) < 0) _exit(112);
  _exit(0);
}

/* The sandbox. */

static void bind_device(const char *name) {
  char from[40], to[40];
  snprintf(from, sizeof from, "/dev/%s", name);
  snprintf(to, sizeof to, "dev/%s", name);
  int fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
  if (fd >= 0) close(fd);
  MUST(mount(from, to, 0, MS_BIND, 0));
}

static void make_root(int root) {
  static const char *devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
  static const char *links[][2] = {{"/proc/self/fd", "dev/fd"},       {"/proc/self/fd/0", "dev/stdin"},
                                   {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
                                   {"pts/ptmx", "dev/ptmx"}};
  static const char *folders[] = {"proc", "dev", "manta", "assets"};
  MUST(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
  MUST(mount("tmpfs", "/mnt", "tmpfs", 0, 0));
  MUST(syscall(SYS_move_mount, root, "", AT_FDCWD, "/mnt", MOVE_MOUNT_FROM_DESCRIPTOR));
  MUST(chdir("/mnt"));
  for (size_t i = 0; i < COUNT(folders); i++)
    if (mkdir(folders[i], 0755) && errno != EEXIST) fail(folders[i]);
  MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "size=64k,mode=755"));
  for (size_t i = 0; i < COUNT(devices); i++) bind_device(devices[i]);
  for (size_t i = 0; i < COUNT(links); i++) MUST(symlink(links[i][0], links[i][1]));
  MUST(mkdir("dev/shm", 01777));
  MUST(mkdir("dev/pts", 0755));
  MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"));
  MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
  put("proc/sys/user/max_user_namespaces", "0");
  MUST(syscall(SYS_pivot_root, ".", "."));
  MUST(umount2(".", MNT_DETACH));
  MUST(chdir("/"));
}

static void loopback_up(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {.ifr_name = "lo"};
  request.ifr_flags = IFF_UP;
  MUST(ioctl(fd, SIOCSIFFLAGS, &request));
  close(fd);
}

/* Waits for a task's process 1; the agent may have it killed, or go. */
static void await(pid_t task) {
  int watch = syscall(SYS_pidfd_open, task, 0);
  struct pollfd events[2] = {{control, POLLIN, 0}, {watch, POLLIN, 0}};
  while (poll(events, 2, -1) >= 0 || errno == EINTR) {
    if (events[1].revents & POLLIN) break;
    if (events[0].revents) {
      char word;
      ssize_t n = recv(control, &word, 1, MSG_DONTWAIT);
      if (n == 0) _exit(0);
      if (n > 0 && word == 'K') kill(task, SIGKILL);
    }
  }
  close(watch);
}

static void serve(char *text, int length, const int *given, int count) {
  int answer[2], status = 0, of_init;
  MUST(pipe2(answer, O_CLOEXEC));
  pid_t task = clone_into(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC);
  MUST(task);
  if (!task) {
    close(answer[0]);
    run_task(text, length, given, count, answer[1]);
  }
  for (int i = 0; i < count; i++) close(given[i]);
  close(answer[1]);
  await(task);
  struct rusage used;
  wait4(task, &of_init, 0, &used);
  char why[400] = "", reply[600];
  ssize_t n = read(answer[0], why, sizeof why - 1);
  close(answer[0]);
  if (n == sizeof status) {
    memcpy(&status, why, sizeof status);
    *why = 0;
  } else {
    why[n > 0 ? n : 0] = 0;
    status = WIFSIGNALED(of_init) ? of_init : 111 << 8;
  }
  int size = snprintf(reply, sizeof reply, "D %d %ld %ld %ld %s", status, used.ru_utime.tv_sec * 1000000L + used.ru_utime.tv_usec,
                      used.ru_stime.tv_sec * 1000000L + used.ru_stime.tv_usec, used.ru_maxrss, why);
  send(control, reply, size, MSG_NOSIGNAL);
}

static void serve_for_ever(void) {
  static char text[MESSAGE_BYTES_MAX];
  for (;;) {
    int given[8], count = 0;
    union {
      char space[CMSG_SPACE(sizeof given)];
      struct cmsghdr aligned;
    } rights;
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = rights.space, .msg_controllen = sizeof rights.space};
    ssize_t length = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) _exit(0);
    text[length] = 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
      count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      memcpy(given, CMSG_DATA(head), count * sizeof(int));
    }
    if (*text == 'R') serve(text, length, given, count);
  }
}

/* In the first process: who gave us our ids, and an accounting file, from outside of the new namespaces. */
static void finish_launch(pid_t first, const char *uid_base, const char *accounting) {
  char file[64], text[64];
  snprintf(text, sizeof text, "0 %s %d", uid_base, IDS);
  snprintf(file, sizeof file, "/proc/%d/uid_map", first);
  put(file, text);
  snprintf(file, sizeof file, "/proc/%d/gid_map", first);
  put(file, text);
  if (strcmp(accounting, "-")) {
    int fd = syscall(SYS_pidfd_open, first, 0);
    MUST(setns(fd, CLONE_NEWPID));
    close(fd);
    pid_t inside = fork();
    MUST(inside);
    if (!inside) {
      MUST(syscall(SYS_acct, accounting));
      _exit(0);
    }
    int status;
    if (waitpid(inside, &status, 0) < 0 || status) _exit(111); /* it has said why */
  }
  int n = snprintf(text, sizeof text, "P %d", first);
  send(control, text, n, MSG_NOSIGNAL);
}

int main(int count, char **argument) {
  if (count < 6) {
    fprintf(stderr, "usage: sandbox-init CONTROL ROOT UID_BASE NAME ACCOUNTING [CGROUP_PROCS...]\n");
    return 2;
  }
  control = atoi(argument[1]);
  int root = atoi(argument[2]), go[2];
  const char *uid_base = argument[3], *name = argument[4], *accounting = argument[5];
  fcntl(control, F_SETFD, FD_CLOEXEC);
  for (int i = 6; i < count; i++) put(argument[i], "0");
  make_filter();
  MUST(pipe2(go, O_CLOEXEC));
  pid_t first =
      clone_into(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWCGROUP);
  MUST(first);
  if (first) {
    close(go[0]);
    finish_launch(first, uid_base, accounting);
    return write(go[1], "x", 1) != 1;
  }
  char word;
  close(go[1]);
  if (read(go[0], &word, 1) != 1) _exit(1); /* the launcher has said why */
  close(go[0]);
  MUST(setresgid(0, 0, 0));
  MUST(setresuid(0, 0, 0));
  MUST(syscall(SYS_setgroups, 0, 0));
  MUST(sethostname(name, strlen(name)));
  for (int i = 0; i < count; i++) memset(argument[i], 0, strlen(argument[i])); /* who looks at /proc/1 learns nothing of the host */
  umask(022);
  make_root(root);
  loopback_up();
  syscall(SYS_close_range, 3, control - 1, 0);
  syscall(SYS_close_range, control + 1, ~0U, 0);
  prctl(PR_SET_DUMPABLE, 0);
  send(control, "U", 1, MSG_NOSIGNAL);
  serve_for_ever();
}

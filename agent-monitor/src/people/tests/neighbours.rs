//! Two of everything: what a decision, a time-out or an end does to the neighbour, which is nothing.

use super::*;
use crate::people::api::ApprovalView;
use crate::people::approvals::Restart;
use crate::people::approvals::view::{left_words, means, span_words};
use crate::people::sessions::NewSession;

const FOR: Answer = Answer::Approve(Form::For(Duration::from_secs(60)));
const SESSION: Answer = Answer::Approve(Form::Session);

/// The same action of another agent.
fn of_cat(tgid: u32, digest: u64, held: bool, session: u64) -> Request {
    Request { agent: 8, id: "cat".to_owned(), ..request(tgid, digest, held, session) }
}

fn new(asked: Asked) -> i64 {
    let Asked::New(id) = asked else { panic!("{asked:?}") };
    id
}

fn keys(bench: &Bench, id: i64) -> Vec<TaskKey> {
    bench.people.waiters(id).unwrap().iter().map(|waiter| waiter.key).collect()
}

fn state(bench: &Bench, id: i64) -> String {
    bench.people.approval(id).unwrap().unwrap().state
}

fn view(bench: &Bench, id: i64, second: u64) -> ApprovalView {
    bench.people.view(bench.people.approval(id).unwrap().unwrap(), &oncall(2), at(second)).unwrap()
}

#[test]
fn the_same_action_of_another_agent_and_one_that_does_not_wait_are_requests_of_their_own() {
    let mut bench = bench();
    let bot = bench.fresh(11, 1);
    let cat = new(bench.ask(&of_cat(12, 1, true, 0), 1));
    let retry = new(bench.ask(&request(13, 1, false, 0), 1));
    assert_eq!(
        (keys(&bench, bot), keys(&bench, cat), keys(&bench, retry)),
        (vec![key(11)], vec![key(12)], vec![key(13)])
    );
    bench.take();
    bench.say(bot, 100, FOR, 1).unwrap();
    let (effects, _) = bench.take();
    assert_eq!(put(&effects).iter().map(|ticket| ticket.agent).collect::<Vec<_>>(), [7]);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Wake(_))).count(), 1);
    assert_eq!(
        (state(&bench, bot), state(&bench, cat), state(&bench, retry)),
        ("approved".into(), "pending".into(), "pending".into())
    );
    let open = bench.people.held().unwrap();
    assert_eq!(
        open.iter().map(|(agent, waiter, digest)| (*agent, waiter.key, *digest)).collect::<Vec<_>>(),
        [(8, key(12), 1)]
    );
}

#[test]
fn a_denial_is_for_the_processes_that_waited_and_wakes_only_who_is_stopped() {
    let mut bench = bench();
    let held = bench.fresh(11, 1);
    bench.ask(&request(12, 1, true, 0), 1);
    let retry = new(bench.ask(&request(13, 2, false, 0), 1));
    bench.take();
    let decision = bench.say(held, 100, Answer::Deny, 1).unwrap();
    assert_eq!(decision, Decision { state: "denied", votes: 0, need: 0, rest: None });
    let no = |tgid, digest| Ticket {
        agent: 7,
        digest,
        whom: Whom::Task(key(tgid)),
        pass: false,
        expires: 12 * SECOND,
        uses: u32::MAX,
    };
    let wakes = [Effect::Wake(key(11)), Effect::Wake(key(12)), Effect::Carried(held)];
    assert_eq!(
        bench.take().0,
        [vec![Effect::Put(no(11, 1)), Effect::Put(no(12, 1))], wakes.to_vec()].concat()
    );
    bench.say(retry, 100, Answer::Deny, 1).unwrap();
    assert_eq!(bench.take().0, [Effect::Put(no(13, 2)), Effect::Carried(retry)]);
    bench.people.expire(at(10_000), &mut bench.done).unwrap();
    assert_eq!(bench.take(), (vec![], vec![]), "what is decided does not time out");
}

#[test]
fn what_is_approved_without_a_stop_passes_in_its_own_session_only() {
    let mut bench = bench();
    let id = new(bench.ask(&request(11, 1, false, 5), 1));
    bench.ask(&request(12, 1, false, 6), 1);
    bench.take();
    let decision = bench.say(id, 100, ONCE, 1).unwrap();
    assert_eq!(decision.rest, None, "nobody is stopped, so nobody waits on");
    let ticket = put(&bench.take().0)[0];
    assert_eq!((ticket.whom, ticket.uses, ticket.pass), (Whom::Session(5), 1, true));
}

#[test]
fn a_session_ticket_ends_with_its_session() {
    let mut bench = bench();
    let open = |bench: &mut Bench, tgid, ttl| {
        let new = NewSession {
            agent: "bot",
            index: 7,
            task: None,
            ttl,
            scope: None,
            root: Some(key(tgid)),
            bound_by: "exe",
            by: None,
        };
        bench.people.open_session(&new, at(1), &mut bench.done).unwrap().number
    };
    let timed = open(&mut bench, 50, Some(Duration::from_secs(30)));
    let endless = open(&mut bench, 51, None);
    for (session, expires) in [(timed, 31 * SECOND), (endless, u64::MAX), (77, u64::MAX)] {
        let id = new(bench.ask(&request(11, session, true, session), 1));
        bench.take();
        bench.say(id, 100, SESSION, 1).unwrap();
        let ticket = put(&bench.take().0)[0];
        assert_eq!((ticket.whom, ticket.uses, ticket.expires), (Whom::Session(session), u32::MAX, expires));
    }
}

#[test]
fn who_waits_on_keeps_the_deadline_the_action_and_the_need() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.ask(&request(12, 1, true, 0), 30);
    let first = bench.people.approval(id).unwrap().unwrap();
    let rest = bench.say(id, 100, ONCE, 1).unwrap().rest.unwrap();
    let next = bench.people.approval(rest).unwrap().unwrap();
    assert_eq!(
        (next.deadline, next.digest, next.index, next.held, next.count),
        (first.deadline, 1, 7, true, 1)
    );
    assert_eq!((next.agent.as_str(), next.event, next.asked), ("bot", first.event, first.asked));
    assert_eq!((keys(&bench, id), keys(&bench, rest)), (vec![key(11)], vec![key(12)]));
    bench.take();
    // The first one's yes is not a yes to the other.
    assert_eq!(bench.say(rest, 101, ONCE, 2).unwrap().state, "pending");
    bench.take();
    bench.people.expire(at(600), &mut bench.done).unwrap();
    assert_eq!(bench.take(), (vec![], vec![]));
    bench.people.expire(at(601), &mut bench.done).unwrap();
    let (effects, kinds) = bench.take();
    assert_eq!((put(&effects)[0].whom, put(&effects)[0].pass), (Whom::Task(key(12)), false));
    assert_eq!((effects.len(), kinds), (3, vec![Kind::ApprovalExpired]));
    assert_eq!((state(&bench, id), state(&bench, rest)), ("approved".into(), "expired".into()));
}

#[test]
fn a_request_that_is_closed_is_not_closed_again() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    let open = bench.people.approval(id).unwrap().unwrap();
    bench.say(id, 100, ONCE, 1).unwrap();
    bench.take();
    let again = bench.people.give_up(&open, "expired", "late", at(700), &mut bench.done);
    assert!(again.is_err());
    assert_eq!((bench.take(), state(&bench, id)), ((vec![], vec![]), "approved".into()));
}

#[test]
fn a_vote_of_someone_who_lost_the_right_counts_no_more() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.say(id, 100, FOR, 2).unwrap();
    bench.take();
    // ann is no approver any more; bob and eve are.
    let now = Approvers {
        named: vec![Approver::User("bob".to_owned()), Approver::User("eve".to_owned())],
        ..oncall(2)
    };
    let mut say = |uid, answer| {
        let person = FakeDirectory.person(uid);
        let say = Say { person: &person, answer, why: None, digest: Some("0000000000000001") };
        bench.people.decide(id, say, &now, &FakeDirectory, at(2), &mut bench.done).unwrap()
    };
    // Nor does it bind the others to what it said.
    let second = say(101, ONCE);
    assert_eq!((second.state, second.votes, second.need), ("pending", 1, 2));
    let third = say(102, ONCE);
    assert_eq!((third.state, third.votes, third.need), ("approved", 2, 2));
    let votes = bench.people.votes(id).unwrap();
    assert_eq!(
        votes.iter().map(|vote| (vote.uid, vote.form.as_str())).collect::<Vec<_>>(),
        [(100, "for 60s"), (101, "once"), (102, "once")]
    );
}

#[test]
fn the_form_that_is_kept_and_the_limits_of_a_time() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    for (span, good) in [(0, false), (86_401, false), (1, true)] {
        let answer = Answer::Approve(Form::For(Duration::from_secs(span)));
        assert_eq!(bench.say(id, 100, answer, 1).is_ok(), good, "{span}");
    }
    let found = bench.people.approval(id).unwrap().unwrap();
    assert_eq!(
        (found.form.as_deref(), found.decided_by.as_deref(), found.why.as_deref()),
        (Some("for 1s"), Some("ann"), Some("because"))
    );
    assert_eq!(found.decided, Some(at(2).wall));
    let id = bench.fresh(12, 2);
    bench.say(id, 100, Answer::Approve(Form::For(Duration::from_secs(86_400))), 1).unwrap();
    // A record that asks for nobody asks for one.
    let id = bench.fresh(13, 3);
    bench.take();
    let decision = bench.say(id, 100, ONCE, 0).unwrap();
    assert_eq!((decision.state, decision.votes, decision.need), ("approved", 1, 1));
    let events = std::mem::take(&mut bench.done.events);
    let detail = events[0].detail.as_ref().unwrap();
    for (field, value) in [
        ("approval", "3"),
        ("by", "\"ann\""),
        ("as", "\"group:oncall\""),
        ("form", "\"once\""),
        ("digest", "\"0000000000000003\""),
    ] {
        assert_eq!(detail[field].to_string(), value, "{field}");
    }
}

#[test]
fn each_refusal_names_who_what_and_why() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.say(id, 102, ONCE, 1).unwrap_err();
    let refused = bench.done.events.last().unwrap();
    let detail = refused.detail.as_ref().unwrap();
    assert_eq!(
        (detail["approval"].to_string(), detail["uid"].to_string(), detail["by"].to_string()),
        ("1".into(), "102".into(), "\"eve\"".into())
    );
    assert_eq!(
        (detail["agent"].to_string(), detail["reason"].to_string().contains("not among")),
        ("\"bot\"".into(), true)
    );
    // Four eyes: the first yes says how many there are.
    bench.take();
    bench.say(id, 100, ONCE, 2).unwrap();
    let detail = bench.done.events[0].detail.clone().unwrap();
    assert_eq!((detail["votes"].to_string(), detail["need"].to_string()), ("1".into(), "2".into()));
    let open = view(&bench, id, 3);
    assert_eq!(
        (open.left_ms, open.votes.len(), open.need, open.approvers.as_str()),
        (598_000, 1, 2, "group:oncall")
    );
    bench.say(id, 101, ONCE, 2).unwrap();
    let closed = view(&bench, id, 3);
    assert_eq!((closed.left_ms, closed.waiting, closed.state.as_str()), (0, vec![], "approved"));
    assert_eq!(closed.event.kind, Kind::FileOpen);
}

#[test]
fn a_flood_of_one_agent_is_not_one_of_another_and_ends_only_when_it_is_over() {
    let mut bench = bench();
    let first = bench.fresh(1, 1);
    for n in 2..=20 {
        bench.fresh(n, u64::from(n));
    }
    let cat = new(bench.ask(&of_cat(90, 1, true, 0), 1));
    bench.take();
    assert_eq!(bench.ask(&request(21, 21, false, 0), 1), Asked::Flooded);
    assert_eq!(bench.ask(&request(22, 22, true, 0), 1), Asked::Flooded);
    let (effects, kinds) = bench.take();
    assert_eq!((effects.len(), kinds.len()), (3, 1), "one of the two is stopped: {effects:?}");
    assert!(effects.contains(&Effect::Wake(key(22))) && !effects.contains(&Effect::Wake(key(21))));
    bench.people.flush(at(2), &mut bench.done).unwrap();
    assert_eq!((bench.take().1, bench.people.floods().len()), (vec![], 1), "it is not over");
    bench.say(cat, 100, Answer::Deny, 1).unwrap();
    bench.people.flush(at(2), &mut bench.done).unwrap();
    assert_eq!(
        (bench.take().1, bench.people.floods().len()),
        (vec![Kind::ApprovalDenied], 1),
        "nor by another's end"
    );
    bench.say(first, 100, Answer::Deny, 1).unwrap();
    bench.take();
    // The next request finds room, and says that the flood is over.
    new(bench.ask(&request(23, 23, true, 0), 3));
    let events = std::mem::take(&mut bench.done.events);
    assert_eq!(
        events.iter().map(|event| event.kind).collect::<Vec<_>>(),
        [Kind::ApprovalFlood, Kind::ApprovalRequested]
    );
    let flood = events[0].detail.as_ref().unwrap();
    assert_eq!((flood["phase"].to_string(), flood["denied"].to_string()), ("\"over\"".into(), "2".into()));
    assert!(bench.people.floods().is_empty());
}

#[test]
fn what_was_merged_is_counted_once_whoever_writes_it() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    let other = bench.fresh(21, 2);
    bench.ask(&request(12, 1, true, 0), 1);
    bench.people.flush(at(2), &mut bench.done).unwrap();
    bench.people.flush(at(2), &mut bench.done).unwrap();
    assert_eq!((view(&bench, id, 2).count, view(&bench, other, 2).count), (2, 1));
    bench.ask(&request(13, 1, true, 0), 1);
    bench.say(id, 100, FOR, 1).unwrap();
    assert_eq!(bench.people.approval(id).unwrap().unwrap().count, 3);
    let (effects, _) = bench.take();
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Wake(_))).count(), 3);
    let counts = bench.people.decisions("bot").unwrap();
    assert_eq!(
        counts.iter().map(|count| (count.by.as_deref(), count.requests, count.asked)).collect::<Vec<_>>(),
        [(Some("ann"), 1, 3)]
    );
}

#[test]
fn lists_are_of_one_agent_and_of_what_is_open() {
    let mut bench = bench();
    let one = bench.fresh(11, 1);
    let two = bench.fresh(12, 2);
    let cat = new(bench.ask(&of_cat(13, 1, true, 0), 1));
    bench.say(one, 100, Answer::Deny, 1).unwrap();
    let list = |agent, all| -> Vec<i64> {
        bench.people.list(agent, all).unwrap().iter().map(|found| found.id).collect()
    };
    assert_eq!(list(None, false), [two, cat]);
    assert_eq!(list(None, true), [two, cat, one]);
    assert_eq!(list(Some("cat"), true), [cat]);
    assert_eq!(list(Some("bot"), true), [two, one]);
}

#[test]
fn a_restart_wakes_refuses_and_waits_each_for_itself() {
    let mut bench = bench();
    let undone = bench.fresh(11, 1);
    let carried = bench.fresh(12, 2);
    let waits = new(bench.ask(&of_cat(13, 3, true, 0), 1));
    let denied = bench.fresh(14, 4);
    let mut short = of_cat(15, 5, true, 0);
    short.timeout = Some(Duration::from_secs(3));
    let overdue = new(bench.ask(&short, 1));
    bench.say(undone, 100, ONCE, 1).unwrap();
    bench.say(carried, 100, ONCE, 1).unwrap();
    bench.people.carried(carried).unwrap();
    let (mut bench, opened) = bench.crash("boot-1", at(5));
    let on_loss = |agent: &str| if agent == "cat" { OnDaemonLoss::Wait } else { OnDaemonLoss::Deny };
    let restart = bench.people.restart(opened, &on_loss, at(5), &mut bench.done).unwrap();
    assert_eq!(restart, Restart { waiting: 2, refused: 1, undone: 1 });
    let states = [undone, carried, waits, denied, overdue].map(|id| state(&bench, id));
    assert_eq!(states, ["approved", "approved", "pending", "denied", "expired"]);
    let (effects, kinds) = bench.take();
    assert_eq!(kinds, [Kind::ApprovalDenied, Kind::ApprovalExpired]);
    let woken: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Wake(_))).copied().collect();
    assert_eq!(woken, [Effect::Wake(key(11)), Effect::Wake(key(14)), Effect::Wake(key(15))]);
    assert!(effects.contains(&Effect::Carried(undone)) && !effects.contains(&Effect::Carried(carried)));
}

#[test]
fn nothing_of_another_boot_is_woken() {
    let mut bench = bench();
    let undone = bench.fresh(11, 1);
    let open = bench.fresh(12, 2);
    bench.say(undone, 100, ONCE, 1).unwrap();
    let (mut bench, opened) = bench.crash("boot-2", at(5));
    let restart = bench.people.restart(opened, &|_| OnDaemonLoss::Wait, at(5), &mut bench.done).unwrap();
    assert_eq!(restart, Restart { waiting: 0, refused: 1, undone: 1 });
    assert_eq!(
        bench.take(),
        (vec![Effect::Carried(undone), Effect::Carried(open)], vec![Kind::ApprovalGone])
    );
    assert_eq!(state(&bench, open), "gone");
}

#[test]
fn only_who_is_stopped_can_be_gone() {
    let mut bench = bench();
    let held = bench.fresh(11, 1);
    let retry = new(bench.ask(&request(12, 2, false, 0), 1));
    bench.take();
    bench.people.bury(&mut |_| false, "it ended", at(3), &mut bench.done).unwrap();
    assert_eq!((state(&bench, held), state(&bench, retry)), ("gone".into(), "pending".into()));
}

#[test]
fn old_decisions_go_and_open_requests_stay() {
    let mut bench = bench();
    let open = bench.fresh(11, 1);
    let old = bench.fresh(12, 2);
    bench.say(old, 100, ONCE, 1).unwrap();
    assert_eq!(bench.people.prune().unwrap(), 0);
    let many = "UPDATE sqlite_sequence SET seq = 200000 WHERE name = 'approval'";
    bench.people.db.write(|tx| tx.execute(many, [])).unwrap();
    let young = bench.fresh(13, 3);
    bench.say(young, 100, ONCE, 1).unwrap();
    assert_eq!(bench.people.prune().unwrap(), 1);
    assert!(bench.people.approval(old).unwrap().is_none());
    assert_eq!((state(&bench, open), state(&bench, young)), ("pending".into(), "approved".into()));
}

#[test]
fn a_long_event_is_kept_without_most_of_its_arguments() {
    let mut bench = bench();
    let mut long = request(11, 1, true, 0);
    let args = |count: usize, length: usize| vec!["x".repeat(length); count];
    long.event.process = Some(Arc::new(Process { pid: 11, args: args(20, 20_000), ..Process::default() }));
    let id = new(bench.ask(&long, 1));
    let kept = view(&bench, id, 2).event.process.unwrap();
    assert_eq!((kept.args.len(), kept.args[0].len(), kept.args_truncated), (16, 1024, true));
    let mut whole = request(12, 2, true, 0);
    whole.event.process = Some(Arc::new(Process { pid: 12, args: args(20, 2000), ..Process::default() }));
    let id = new(bench.ask(&whole, 1));
    let kept = view(&bench, id, 2).event.process.unwrap();
    assert_eq!((kept.args.len(), kept.args[0].len(), kept.args_truncated), (20, 2000, false));
}

#[test]
fn a_form_says_how_far_it_reaches() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    let held = view(&bench, id, 2);
    let id = new(bench.ask(&request(12, 2, false, 5), 1));
    let retry = view(&bench, id, 2);
    let mut shadow = held.clone();
    shadow.agent = crate::attribute::identity::SHADOW_ID.to_owned();
    let minute = Form::For(Duration::from_secs(600));
    let rows = [
        (&held, Form::Once, "once", "process 11", false),
        (&retry, Form::Once, "once", "the next time bot tries", false),
        (&held, minute, "for", "for 10 min", true),
        (&held, Form::Session, "session", "of session s-1", true),
        (&shadow, Form::Once, "once", "all that it started", true),
    ];
    for (view, form, name, part, widens) in rows {
        let means = means(view, form, Some("s-1"));
        assert_eq!((means.form.as_str(), means.widens), (name, widens), "{}", means.means);
        assert!(means.means.contains(part), "{}", means.means);
    }
}

#[test]
fn times_read_as_people_say_them() {
    let left =
        [(59, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (3600, "1 h 00 min"), (7265, "2 h 01 min")];
    assert!(left.iter().all(|(seconds, words)| left_words(*seconds) == *words), "{left:?}");
    let span = [
        (90, "90 s"),
        (60, "60 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3600, "60 min"),
        (7200, "2 h"),
        (7260, "121 min"),
        (7201, "7201 s"),
    ];
    for (seconds, words) in span {
        assert_eq!(span_words(seconds), words);
    }
}

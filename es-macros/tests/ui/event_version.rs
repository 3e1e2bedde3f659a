use es_core::Event;

#[derive(Event)]
#[event(category = "order")]
enum OrderEvent {
    #[event(name = "order.a", version = 0)]
    Zero,
    #[event(name = "order.b", version = "2")]
    Text,
    #[event(name = "order.c", version = 4294967296)]
    Large,
    #[event(name = "order.d", version = 2, upcast(2 = old))]
    UpcastOfCurrent,
    #[event(name = "order.e", upcast(1 = old))]
    UpcastWithoutVersion,
    #[event(name = "order.f", version = 3, upcast(0 = old, 1 = old, 1 = old))]
    UpcastTwice,
    #[event(name = "order.g", version = 2, upcast(1 = |old| old))]
    Closure,
    #[event(name = "order.h", version = 2, upcast = old)]
    NoOldVersion,
    #[event(name = "order.i", version = 2, upcast(old))]
    NoNumber,
    #[event(name = "order.j", version = 3)]
    NoUpcaster,
    #[event(name = "order.k", version = 3, upcast(2 = old))]
    FirstIsMissing,
    #[event(name = "order.l", version = 4, upcast(1 = old, 3 = old))]
    Hole,
    #[event(name = "order.m", version = 4294967295, upcast(1 = old))]
    Many,
}

fn main() {}

%% Load clients of Mnesia: processes of its first node, driven over standard input (bench/src/driver.rs says how).
%%
%% A client of Mnesia is a process of one of its nodes, so there is no client to measure apart.
-module(mneme_bench).
-export([main/1, client/5]).

%% Reads take less than a microsecond: only every 64th is timed.
-define(TIMED_READS, 64).
%% How long what was begun in the measured time may take, in nanoseconds.
-define(DRAIN_MAX, 10_000_000_000).

-record(cell, {operation, records, keys, rate, began, from, until}).
-record(tally, {operations = 0, failed = 0, reads = #{}, writes = #{}}).

%% main([Directory, Transaction, Other...]): Transaction is transaction or sync_transaction.
main([Directory, Transaction | Names]) ->
  %% Standard output is for figures alone.
  ok = logger:remove_handler(default),
  ok = logger:add_handler(default, logger_std_h, #{config => #{type => standard_error}}),
  Others = [list_to_atom(Name) || Name <- Names],
  [wait_for(Other, 200) || Other <- Others],
  All = [node() | Others],
  [ok = rpc:call(Node, application, set_env, [mnesia, dir, filename:join(Directory, atom_to_list(Node))]) || Node <- All],
  ok = mnesia:create_schema(All),
  [ok = rpc:call(Node, mnesia, start, []) || Node <- All],
  {atomic, ok} = mnesia:create_table(sessions, [{type, set}, {disc_copies, All}]),
  persistent_term:put(value, binary:copy(<<"v">>, 300)),
  persistent_term:put(transaction, list_to_atom(Transaction)),
  io:format("ready~n"),
  loop().

wait_for(Node, Looks) when Looks > 0 ->
  case net_adm:ping(Node) of
    pong -> ok;
    pang -> timer:sleep(50), wait_for(Node, Looks - 1)
  end.

loop() ->
  case io:get_line("") of
    eof -> halt();
    Line ->
      case string:lexemes(Line, " \n") of
        ["fill", Keys] -> fill(list_to_integer(Keys));
        ["cell", Operation | Numbers] -> cell(list_to_atom(Operation), [list_to_integer(Number) || Number <- Numbers])
      end,
      loop()
  end.

fill(Keys) ->
  persistent_term:put(keys, list_to_tuple([key(Number) || Number <- lists:seq(0, Keys - 1)])),
  [true = write(First, min(100, Keys - First), Keys) || First <- lists:seq(0, Keys - 1, 100)],
  io:format("filled~n").

key(Number) -> iolist_to_binary(io_lib:format("sess:~32.16.0b", [binary:decode_unsigned(erlang:md5(<<Number:64>>))])).

cell(Operation, [Clients, Records, Keys, Rate, WarmMs, MeasureMs]) ->
  %% On a whole millisecond, as timers are.
  Began = (erlang:monotonic_time(millisecond) + 5) * 1_000_000,
  From = Began + WarmMs * 1_000_000,
  Until = From + MeasureMs * 1_000_000,
  Cell = #cell{operation = Operation, records = Records, keys = Keys, rate = Rate, began = Began, from = From, until = Until},
  %% The number of the next request that is due.
  Next = atomics:new(1, []),
  Pids = [spawn_link(?MODULE, client, [self(), Number, Cell, Next, #tally{}]) || Number <- lists:seq(1, Clients)],
  sleep_until(From),
  io:format("start~n"),
  sleep_until(Until),
  io:format("stop~n"),
  Tallies = [receive {Pid, Tally} -> Tally end || Pid <- Pids],
  Sum = fun(Field) -> lists:sum([element(Field, Tally) || Tally <- Tallies]) end,
  Counts = fun(Field) -> counts(lists:foldl(fun(Tally, All) -> merge(element(Field, Tally), All) end, #{}, Tallies)) end,
  io:format("{\"operations\":~b,\"failed\":~b,\"reads\":[~s],\"writes\":[~s]}~n",
            [Sum(#tally.operations), Sum(#tally.failed), Counts(#tally.reads), Counts(#tally.writes)]).

merge(Some, All) -> maps:fold(fun(Latency, Times, Sum) -> add(Latency, Times, Sum) end, All, Some).

counts(Map) -> lists:join(",", [io_lib:format("[~b,~b]", [Latency, Times]) || {Latency, Times} <- maps:to_list(Map)]).

%% Until a whole millisecond.
sleep_until(Time) ->
  case Time - erlang:monotonic_time(nanosecond) of
    Left when Left > 0 ->
      Timer = erlang:start_timer(Time div 1_000_000, self(), wake, [{abs, true}]),
      receive {timeout, Timer, wake} -> ok end;
    _ -> ok
  end.

client(Parent, Number, Cell, Next, Tally) ->
  rand:seed(exsss, {Number, 1, 1}),
  Parent ! {self(), requests(Cell, Next, Tally)}.

%% Closed loop: the next request when the last is answered, until the time is over.
requests(#cell{rate = 0, until = Until} = Cell, Next, Tally) ->
  case erlang:monotonic_time(nanosecond) of
    Now when Now >= Until -> Tally;
    Now -> requests(Cell, Next, request(Now, Cell, Tally))
  end;
%% Open loop: the next request when it is due, in groups of a millisecond, timed from when it was due.
requests(#cell{rate = Rate, began = Began, until = Until} = Cell, Next, Tally) ->
  Due = Began + (1000 * atomics:add_get(Next, 1, 1) + Rate - 1) div Rate * 1_000_000,
  case Due >= Until orelse erlang:monotonic_time(nanosecond) > Until + ?DRAIN_MAX of
    true -> Tally;
    false -> sleep_until(Due), requests(Cell, Next, request(Due, Cell, Tally))
  end.

request(At, #cell{operation = Operation, records = Records, keys = Keys, rate = Rate, from = From, until = Until}, Tally) ->
  Key = rand:uniform(Keys) - 1,
  IsWrite = Operation =:= write orelse (Operation =:= mix andalso rand:uniform(10) =:= 1),
  Done = case IsWrite of true -> write(Key, Records, Keys); false -> read(Key) end,
  Now = erlang:monotonic_time(nanosecond),
  InTime = Now >= From andalso Now < Until,
  Counted = case Rate of 0 -> InTime; _ -> At >= From end,
  #tally{operations = Operations, failed = Failed, reads = Reads, writes = Writes} = Tally,
  Sum = case Done andalso InTime of true -> Operations + Records; false -> Operations end,
  Failures = case Counted andalso not Done of true -> Failed + 1; false -> Failed end,
  Counts = Tally#tally{operations = Sum, failed = Failures},
  if
    not Counted -> Counts;
    IsWrite -> Counts#tally{writes = add(rounded(Now - At), 1, Writes)};
    Rate > 0 orelse Sum rem ?TIMED_READS =:= 0 -> Counts#tally{reads = add(rounded(Now - At), 1, Reads)};
    true -> Counts
  end.

%% To the nearest microsecond from ten of them on, else to ten nanoseconds.
rounded(Latency) when Latency >= 10_000 -> Latency div 1_000 * 1_000;
rounded(Latency) -> max(10, Latency div 10 * 10).

add(Latency, Times, Counts) -> maps:update_with(Latency, fun(Sum) -> Sum + Times end, Times, Counts).

write(First, Records, Keys) ->
  Names = persistent_term:get(keys),
  Value = persistent_term:get(value),
  Write = fun() ->
    [ok = mnesia:write({sessions, element((First + Step) rem Keys + 1, Names), Value}) || Step <- lists:seq(0, Records - 1)],
    ok
  end,
  {atomic, ok} =:= mnesia:(persistent_term:get(transaction))(Write).

%% Without a transaction: a look into this node's memory.
read(Number) ->
  case mnesia:dirty_read(sessions, element(Number + 1, persistent_term:get(keys))) of
    [{sessions, _, Value}] -> byte_size(Value) =:= 300;
    _ -> false
  end.
